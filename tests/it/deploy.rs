//! The files of deploy/ agree with the program. That Kubernetes would take them is tests/run's to check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of deploy/")
}

/// What is looked at of an object of Kubernetes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    kind: String,
    metadata: Metadata,
    #[serde(default, alias = "stringData")]
    data: BTreeMap<String, String>,
    spec: Option<Value>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    labels: BTreeMap<String, String>,
}

struct Manifest(Vec<Object>);

impl Manifest {
    fn sidecar() -> Self {
        Self(serde_saphyr::from_multiple(&read("deploy/kubernetes/sidecar.yaml")).expect("objects"))
    }

    fn object(&self, kind: &str, name: Option<&str>) -> &Object {
        let found = self
            .0
            .iter()
            .find(|object| object.kind == kind && name.is_none_or(|name| name == object.metadata.name));
        found.unwrap_or_else(|| panic!("no {kind} {name:?}"))
    }

    fn pod(&self) -> &Value {
        &self.object("Deployment", None).spec.as_ref().expect("a spec")["template"]["spec"]
    }

    fn scopegate(&self) -> &Value {
        &self.pod()["initContainers"][0]
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn the_sidecar_loads_what_its_pod_mounts() {
    let manifest = Manifest::sidecar();
    let root = tempfile::tempdir().expect("a folder");
    let mut mounts = Vec::new();
    for mount in list(&manifest.scopegate()["volumeMounts"]) {
        let volumes = list(&manifest.pod()["volumes"]);
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume");
        let source = match (&volume["configMap"]["name"], &volume["secret"]["secretName"]) {
            (Value::String(name), _) => manifest.object("ConfigMap", Some(name)),
            (_, Value::String(name)) => manifest.object("Secret", Some(name)),
            other => panic!("{other:?}"),
        };
        mounts.push((text(&mount["mountPath"]), &source.data));
    }
    // The longer one first, since one path may begin with another.
    mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    let placed = |path: &str| root.path().join(path.trim_start_matches('/'));
    for (path, files) in &mounts {
        fs::create_dir_all(placed(path)).expect("a folder");
        for (name, text) in *files {
            // Nothing may stand at a fixed path of the machine that runs the test.
            let text = text.replace("file: /", &format!("file: {}/", root.path().display()));
            fs::write(placed(path).join(name), text).expect("a file");
        }
    }
    // The arguments are those of the image.
    let dockerfile = read("deploy/Dockerfile");
    let arguments = dockerfile.lines().find_map(|line| line.strip_prefix("CMD ")).expect("arguments");
    let arguments: Vec<String> = serde_json::from_str(arguments).expect("a list");
    let [command, option, config] = &*arguments else { panic!("{arguments:?}") };
    assert_eq!((&**command, &**option), ("serve", "--config"));

    let checked = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .arg("check")
        .arg(placed(config))
        .output()
        .expect("the program");
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("good: 4 surfaces") && !said.contains("warnings"), "{said}");
}

#[test]
fn the_sidecar_has_the_ports_of_its_configuration() {
    let manifest = Manifest::sidecar();
    let config = &manifest.object("ConfigMap", None).data["config.yaml"];
    let config: Value = serde_saphyr::from_str(config).expect("YAML");
    let port = |name: &str| {
        let ports = list(&manifest.scopegate()["ports"]);
        let port = ports.iter().find(|port| port["name"] == name).expect("a port");
        format!("0.0.0.0:{}", port["containerPort"])
    };
    assert_eq!(config["listen"][0]["address"], port("http").as_str());
    assert_eq!(config["admin"]["address"], port("admin").as_str(), "the kubelet is not on loopback");
    let service = manifest.object("Service", None).spec.as_ref().expect("a spec");
    assert_eq!(service["ports"][0]["targetPort"], "http", "nothing goes past scopegate");
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
        let get = &manifest.scopegate()[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&path.into(), &"admin".into()));
    }
    assert_eq!(manifest.scopegate()["restartPolicy"], "Always", "or it is no sidecar");
    let exposed = read("deploy/Dockerfile");
    assert!(exposed.contains("\nEXPOSE 8080 9901\n") && exposed.contains("\nUSER 65532:65532\n"));
    assert_eq!(manifest.scopegate()["securityContext"]["runAsUser"], 65532);
}

#[test]
fn the_pod_is_given_the_time_that_the_drain_takes() {
    let manifest = Manifest::sidecar();
    let config = &manifest.object("ConfigMap", None).data["config.yaml"];
    let config = scopegate::config::file::parse(Path::new("config.yaml"), config).expect("a configuration");
    let grace = config.value.live.drain.grace.as_secs();
    let pre_stop = &manifest.pod()["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
    let given = manifest.pod()["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(given > pre_stop.as_u64().expect("a number") + grace, "{given} s for {pre_stop} s and {grace} s");
}

#[test]
fn prometheus_looks_for_the_pods_and_ports_that_there_are() {
    let scrape: Value = serde_saphyr::from_str(&read("deploy/prometheus/scrape.yaml")).expect("YAML");
    let job = &scrape["scrape_configs"][0];
    assert_eq!(job["metrics_path"], "/metrics");
    let kept: Vec<_> = list(&job["relabel_configs"]).iter().filter(|rule| rule["action"] == "keep").collect();
    let manifest = Manifest::sidecar();
    let label = &manifest.object("Deployment", None).metadata.labels["app.kubernetes.io/name"];
    assert_eq!(kept[0]["regex"], label.as_str());
    let ports = list(&manifest.scopegate()["ports"]);
    let wanted = text(&kept[1]["regex"]).strip_prefix("true;").expect("an init container");
    assert!(ports.iter().any(|port| port["name"] == wanted), "no port is called {wanted}");
}

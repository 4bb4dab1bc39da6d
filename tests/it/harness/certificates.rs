//! Certificates that a test makes, a program that has them, and those who look at it: curl and OpenSSL.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};

use super::eventually;
use super::scopegate::{ALL, Scopegate, Setup};
use super::upstream::Upstream;

/// Another for each, so that two authorities are not taken for one.
fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Signs what a test needs.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Made {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", fresh()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn make(&self, names: &[&str], serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.sign(&params, &KeyPair::generate().expect("a key"))
    }

    /// Of another kind of key.
    pub fn make_with(&self, kind: &'static SignatureAlgorithm, name: &str, serial: u64) -> Made {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(&params, &KeyPair::generate_for(kind).expect("a key"))
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Made {
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate").pem();
        Made { certificate, key: key.serialize_pem() }
    }

    /// An authority that this one vouches for.
    pub fn below(&self, serial: u64) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", fresh()));
        params.serial_number = Some(SerialNumber::from(serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn server(&self, names: &[&str]) -> Made {
        self.make(names, 1, |_| {})
    }

    pub fn list(&self, revoked: u64) -> String {
        self.list_until(revoked, 2120)
    }

    /// A list for which a newer one is due at the start of this year.
    pub fn list_until(&self, revoked: u64, year: i32) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(revoked),
                revocation_time: date_time_ymd(2021, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

impl Made {
    pub fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.crt")), &self.certificate).expect("a file");
        fs::write(folder.join(format!("{name}.key")), &self.key).expect("a file");
    }
}

/// A program whose only listener has this in its `tls:`; the files are there already.
pub fn start(upstream: &Upstream, tls: &str, write: impl FnOnce(&Path)) -> Scopegate {
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {tls} }} }}]");
    let folder = Setup::new(upstream).with("listen: [{ address: 127.0.0.1:0 }]", &listen).write();
    write(folder.path());
    let scopegate = Scopegate::start(folder);
    scopegate.ready();
    scopegate
}

pub const ONE: &str = "certificates: [{ certificate: a.crt, key: a.key }]";

/// curl, asking for this name.
pub fn curl(address: SocketAddr, folder: &Path, name: &str, more: &[&str]) -> Output {
    let port = address.port();
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--cacert"]).arg(folder.join("ca.pem"));
    command.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), "-H", &format!("X-API-Key: {ALL}")]);
    command.args(more).arg(format!("https://{name}:{port}/api/v1/whoami"));
    command.output().expect("curl")
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What `openssl s_client` says when it has nothing to ask.
pub fn s_client(address: SocketAddr, more: &[&str]) -> String {
    let connect = address.to_string();
    let output = Command::new("timeout")
        .args(["20", "openssl", "s_client", "-connect", &connect])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    said(&output)
}

pub fn failed(scopegate: &Scopegate, reason: &str) {
    let metric = format!("scopegate_tls_handshakes_failed_total{{reason=\"{reason}\"}}");
    eventually(reason, || (scopegate.metric(&metric) >= 1.0).then_some(()));
    scopegate.event(|event| event["reason"] == reason && event["peer"] == "127.0.0.1");
}

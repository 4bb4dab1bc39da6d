//! `kubernetes:`: Secrets that hold keys files, watched through the API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cache, Fail, path};
use crate::config::fields::{Fields, Report};
use crate::config::node::Node;

/// The Secrets of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// `None`: that of the pod, or of the kubeconfig's context.
    pub namespace: Option<Box<str>>,
    /// Which of its Secrets, by a label selector; [`Kubernetes::LABELS`] unless written.
    pub labels: Box<str>,
    /// How the API is reached from outside a cluster; `None`: by the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// So long the last list is good while the API is not heard; [`Kubernetes::STALE_FOR`] unless written.
    pub stale_for: Duration,
}

impl Kubernetes {
    /// Of our own: other Secrets of the namespace are not read.
    pub const LABELS: &str = "scopegate=keys";
    /// As long as a key of any server is good without a question; an API server that is restarted is back within it.
    pub const STALE_FOR: Duration = Cache::STALE;

    /// The list is whole in memory, so an answer is of it and costs next to nothing.
    pub(super) const CACHE: Cache = Cache {
        fresh: Duration::from_secs(1),
        stale: Duration::from_secs(2),
        unknown: Duration::from_secs(1),
        size: Cache::SIZE,
        rate: 1_000_000,
        at_once: 1_000,
        timeout: Duration::from_secs(10),
        fail: Fail::Closed,
    };

    pub(super) fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        if cfg!(not(feature = "kubernetes")) {
            let hint = "take the image, or build it with `--features kubernetes`; a mounted Secret needs neither: `folder:`";
            report.error(node.place, "this scopegate was built without `kubernetes`", hint);
        }
        let mut fields = Fields::of(node, "`kubernetes`", report)?;
        let namespace =
            fields.maybe("namespace", report, |node, report| node.word("`namespace`", report).map(Box::from));
        let labels = fields.or("labels", Self::LABELS, report, |node, report| node.text("`labels`", report));
        let kubeconfig =
            fields.maybe("kubeconfig", report, |node, report| path(node, "`kubeconfig`", folder, report));
        let stale_for = fields
            .or("stale_for", Self::STALE_FOR, report, |node, report| node.duration("`stale_for`", report));
        fields.done(report);
        if labels.is_some_and(|labels| labels.trim().is_empty()) {
            let hint = "name a label of theirs: with none, every Secret of the namespace would be read";
            report.error(node.place, "`labels` is empty", hint);
        }
        Some(Self {
            namespace: namespace?,
            labels: labels?.into(),
            kubeconfig: kubeconfig?,
            stale_for: stale_for?,
        })
    }
}

//! Builds the parts, binds the doors, waits, drains.
//!
//! A worker is a core: one thread with a runtime of its own, its own listener sockets and upstream connections.
//! Control (reload, names, admin, signals) runs on the calling thread, so that neither waits for the other.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep, timeout_at};

use crate::accept::crowd::Crowd;
use crate::accept::drain::{Leave, Phase};
use crate::accept::{self, Door as _, Entrance};
use crate::admin;
use crate::config::limits::Drain;
use crate::config::upstream::Address;
use crate::forward::resolve::look_up;
use crate::gateway::Gateway;
use crate::keys::change::Changes;
use crate::keys::sessions::Sessions;
use crate::observe::lines::{self, Lines};
use crate::observe::metrics::Metrics;
use crate::reload::{Files, Reloader};
use crate::snapshot::{Current, Shared, Snapshot};

/// How often a name is looked up that has no address yet.
const RESOLVE_FIRST: Duration = Duration::from_secs(1);
/// What is left of the access log may take this long to be read when everything else has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A process that is about to serve: everything is bound, nothing is accepted yet.
#[derive(Debug)]
pub struct App {
    shared: Shared,
    leave: Leave,
    reloader: Reloader,
    admin: TcpListener,
    /// For each worker, a socket for each address.
    listeners: Vec<Vec<Listener>>,
    bound: Bound,
}

/// A socket, and how it takes connections in.
type Listener = (TcpListener, Entrance);

/// Where clients and operators can connect.
#[derive(Debug, Clone)]
pub struct Bound {
    /// In the order of `listen:`.
    pub listen: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
}

impl App {
    /// Builds the first snapshot of what was loaded, and binds.
    pub fn bind(files: Files) -> anyhow::Result<Self> {
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let fixed = &files.config().fixed;
        // The CPU quota of the cgroup, rounded up: half a core is one worker.
        let workers = fixed.workers.unwrap_or_else(num_cpus::get);
        let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut listen = Vec::new();
        for (written, tls) in fixed.listen.iter().zip(files.terminators()) {
            let address = written.address;
            let sockets = accept::bind(address, workers).with_context(|| cannot_listen("listen", address))?;
            listen.extend(sockets.first().and_then(|socket| socket.local_addr().ok()));
            let entrance = Entrance::new(written, tls);
            let sockets = sockets.into_iter().map(|socket| (socket, entrance.clone()));
            listeners.iter_mut().zip(sockets).for_each(|(worker, socket)| worker.push(socket));
        }
        let address = fixed.admin.address;
        let admin = TcpListener::bind(address).with_context(|| cannot_listen("admin", address))?;
        admin.set_nonblocking(true)?;
        let bound = Bound { listen, admin: admin.local_addr()? };
        let (changes, config) = (Changes::default(), files.config().clone());
        let snapshot = Snapshot::build(config, &files.tables(), None, &metrics, &changes);
        let current = Current::new(snapshot);
        let (leave, drain) = Leave::new();
        let reloader = Reloader::new(files, Arc::clone(&current), Arc::clone(&metrics), changes.clone());
        let crowd = Crowd::new(metrics.connections.clone(), metrics.connections_refused.clone());
        let sessions = Arc::new(Sessions::new(&metrics));
        let shared = Shared { current, metrics, crowd, changes, sessions, drain };
        Ok(Self { shared, leave, reloader, admin, listeners, bound })
    }

    /// Where it listens.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Serves until what `ends` gives is ready, then drains. It is asked for within the runtime, before anybody is told
    /// that we listen: who then tells us to end is heard. Blocks; an error is a part that could not go on.
    pub fn run<E: Future<Output = ()>>(
        self,
        ends: impl FnOnce() -> std::io::Result<E>,
    ) -> anyhow::Result<()> {
        let Self { shared, leave, reloader, admin, listeners, bound } = self;
        let log = shared.current.load().config.fixed.log;
        let (out, writer) = if log.access {
            lines::writer(std::io::stdout()).map(|(o, w)| (Some(o), Some(w)))?
        } else {
            (None, None)
        };
        let (alive, mut gone) = mpsc::channel(1);
        let mut workers = Vec::new();
        for (number, sockets) in listeners.into_iter().enumerate() {
            let (shared, out, alive) = (shared.clone(), out.clone(), Alive(alive.clone()));
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            workers.push(thread.spawn(move || worker(sockets, shared, out, &alive))?);
        }
        drop((out, alive));
        let control = local()?;
        control.block_on(async {
            let admin = tokio::net::TcpListener::from_std(admin)?;
            spawn_local(admin::run(admin, shared.clone()));
            let (mut hangup, end) = (signal(SignalKind::hangup())?, ends()?);
            for address in &bound.listen {
                tracing::info!(door = "gateway", %address, workers = workers.len(), "listening");
            }
            tracing::info!(door = "admin", address = %bound.admin, "listening");
            spawn_local(reloader.run(async move || {
                hangup.recv().await;
            }));
            spawn_local(resolve(Arc::clone(&shared.current)));
            tokio::select! {
                () = end => drain(&shared, &leave).await,
                _ = gone.recv() => {}
            }
            while gone.recv().await.is_some() {}
            anyhow::Ok(())
        })?;
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker has panicked"))??;
        }
        control.block_on(last_lines(writer));
        tracing::info!("ended");
        Ok(())
    }
}

fn cannot_listen(section: &str, address: SocketAddr) -> String {
    format!(
        "cannot listen on {address} (`{section}:`); another process may have it, or it is not an address of this machine"
    )
}

/// Tells of a worker's end, however it comes.
struct Alive(mpsc::Sender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        // A full channel says the same already.
        let _ = self.0.try_send(());
    }
}

fn worker(
    sockets: Vec<Listener>,
    shared: Shared,
    out: Option<SyncSender<Vec<u8>>>,
    _alive: &Alive,
) -> anyhow::Result<()> {
    local()?.block_on(work(sockets, shared, out))
}

/// A runtime of this thread alone: nothing of its tasks is `Send`.
fn local() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

async fn work(
    sockets: Vec<Listener>,
    shared: Shared,
    out: Option<SyncSender<Vec<u8>>>,
) -> anyhow::Result<()> {
    let lines = Lines::new(out, shared.metrics.lines_dropped.clone());
    let mut drain = shared.drain.clone();
    let heard = shared.changes.hear();
    let gateway = Rc::new(Gateway::new(shared, lines));
    let ticking = Rc::clone(&gateway);
    spawn_local(async move { ticking.tick().await });
    let following = Rc::clone(&gateway);
    spawn_local(async move { following.follow(heard).await });
    for (socket, entrance) in sockets {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        spawn_local(accept::run(socket, entrance, Rc::clone(&gateway), drain.clone()));
    }
    let deadline = drain.deadline().await;
    if timeout_at(deadline, gateway.worker().open.none()).await.is_err() {
        tracing::warn!("the grace period is over; what is still open is cut");
        gateway.cut();
    }
    Ok(())
}

/// First look away, then close the door, then wait for who is inside: they know until when.
async fn drain(shared: &Shared, leave: &Leave) {
    let Drain { delay, grace } = shared.current.load().live().drain;
    let deadline = Instant::now() + grace;
    shared.metrics.draining.set(1);
    leave.enter(Phase::Unready);
    tracing::info!(
        delay_s = delay.as_secs_f64(),
        grace_s = grace.as_secs_f64(),
        "draining: readiness fails from now on"
    );
    sleep(delay).await;
    leave.enter(Phase::Closing { deadline });
    tracing::info!("draining: no more connections are taken");
}

/// A reader that has stopped reading does not hold up the end.
async fn last_lines(writer: Option<JoinHandle<()>>) {
    let Some(writer) = writer else { return };
    let end = Instant::now() + LAST_LINES;
    while !writer.is_finished() && Instant::now() < end {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Keeps the addresses of names up to date, for as long as the process lives.
async fn resolve(current: Arc<Current>) {
    let (mut seconds, mut changes) = (interval(RESOLVE_FIRST), current.changes());
    let mut turn = 0_u64;
    loop {
        tokio::select! {
            _ = seconds.tick() => turn += 1,
            Ok(()) = changes.changed() => {}
        }
        for upstream in &current.load().upstreams {
            if !upstream.is_looked_up() || turn.is_multiple_of(Address::RESOLVE_EVERY_SECONDS) {
                look_up(upstream).await;
            }
        }
    }
}

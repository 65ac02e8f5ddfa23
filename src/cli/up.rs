//! `tidemill up`: continuous work, Flight SQL and metrics in one process.

use std::sync::Arc;

use indicatif::HumanCount;

use super::Exit;
use super::args::{Global, UpArgs};
use super::interrupt::asked_to_end;
use super::open::{self, Opened};
use super::serve::{LISTEN_HINT, listen_on};
use crate::error::{Error, Result};
use crate::run::history::ModelOutcome;
use crate::run::metrics::{Counting, Metrics};
use crate::run::project::{OpenProject, open_warehouse};
use crate::run::reader::Reader;
use crate::run::refresh::Observer;
use crate::run::up::{Leases, up};
use crate::serve::http::Monitor;
use crate::serve::{WarehouseTables, flight, http};

pub(super) async fn execute(global: &Global, args: &UpArgs) -> Result<Exit> {
    let open = match open::open(global).await? {
        Opened::Invalid(exit) => return Ok(exit),
        Opened::Project(open) => open,
    };
    let project = Arc::clone(&open.project);
    let open: Arc<OpenProject> = open.into();
    let reader = Reader::new(open_warehouse(&project).await?, &project.name.value, &project.timezone.value);
    let reader = Arc::new(reader.with_sources(Arc::clone(&open)));
    let tables = Arc::new(WarehouseTables::new(Arc::clone(&project), Arc::clone(&reader))?);
    // Before ports, which another process that works on these tables is likely to have.
    let leases = Leases::acquire(&open).await?;
    let listening = async {
        let listen = args.listen.as_ref().unwrap_or(&project.flight_listen.value);
        let flight = listen_on(listen, LISTEN_HINT).await?;
        let console = match &project.console_listen {
            Some(listen) => Some(listen_on(&listen.value, "`console: { listen: … }` names another address").await?),
            None => None,
        };
        Ok((flight, console))
    };
    let ((listener, address), console) = match listening.await {
        Ok(listening) => listening,
        Err(error) => {
            leases.release().await?;
            return Err(error);
        }
    };
    say!("serving {} over Arrow Flight SQL at grpc://{address}", project.name.value);
    if let Some((_, address)) = &console {
        say!("serving metrics at http://{address}/metrics");
    }
    let metrics = Arc::new(Metrics::new());
    let monitor = Monitor { metrics: Arc::clone(&metrics), reader: Arc::clone(&reader) };

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let wait = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        // A sender that is gone has stopped everything too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let asked = async {
        if let Err(error) = asked_to_end().await {
            tracing::error!(%error, "can't listen for signals");
            std::future::pending::<()>().await;
        }
        stop.send_replace(true);
    };
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let printer = Printer { is_quiet: args.quiet };
    let counting = Counting { metrics: &metrics, inner: &printer };
    let committed = || reader.forget();
    let work = async {
        let done = up(&open, leases, &command, &counting, &committed, wait(stopped.clone())).await;
        // Without the work there is nothing to serve for: the process ends, and who watches it starts it again.
        stop.send_replace(true);
        done
    };
    let serving = async {
        let done = flight::serve(listener, tables, wait(stopped.clone())).await;
        stop.send_replace(true);
        done
    };
    let monitoring = async {
        let Some((listener, _)) = console else { return Ok(()) };
        let done = http::serve(listener, monitor, wait(stopped.clone())).await;
        stop.send_replace(true);
        done
    };
    let all = async { tokio::join!(work, serving, monitoring) };
    tokio::pin!(all);
    let (worked, served, monitored) = tokio::select! {
        all = &mut all => all,
        () = asked => all.await,
    };
    worked?;
    served?;
    monitored?;
    Ok(0)
}

/// One line on stdout for each model that a step changed; failures and warnings on stderr.
struct Printer {
    is_quiet: bool,
}

impl Observer for Printer {
    fn working(&self, _: &str) {}

    fn finished(&self, outcome: &ModelOutcome) {
        let changed = outcome.inserted + outcome.updated + outcome.deleted;
        if self.is_quiet || outcome.status == "nothing" || changed == 0 && outcome.status == "ok" {
            return;
        }
        let now = jiff::Zoned::now().strftime("%H:%M:%S%.3f");
        let (inserted, updated, deleted) =
            (HumanCount(outcome.inserted), HumanCount(outcome.updated), HumanCount(outcome.deleted));
        let mut line = format!(
            "{now}  {}  {}  {}  +{inserted} ~{updated} -{deleted}  {:.3}s",
            outcome.model, outcome.status, outcome.strategy, outcome.seconds
        );
        if outcome.quarantined > 0 {
            line.push_str(&format!("  {} quarantined", outcome.quarantined));
        }
        if outcome.has_failed() {
            line.push_str(&format!("  {}", outcome.reason));
        }
        say!("{line}");
    }

    fn warned(&self, text: &str) {
        if !self.is_quiet {
            eprintln!("warning: {text}");
        }
    }

    fn failed(&self, relation: &str, error: &Error) {
        eprintln!("error: {relation}: {error}");
    }
}

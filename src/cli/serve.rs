//! `tidemill serve`: Flight SQL over the tables.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::Exit;
use super::args::{Global, ServeArgs};
use super::interrupt::asked_to_end;
use super::open;
use crate::error::{Result, ResultExt};
use crate::run::project::{OpenProject, Opening, open_warehouse};
use crate::run::reader::Reader;
use crate::serve::{WarehouseTables, flight};

pub(super) async fn execute(global: &Global, args: &ServeArgs) -> Result<Exit> {
    let (project, faults) = open::load(global)?;
    // Tables can be served whatever the state of the pipelines' files; the names come from tidemill.yaml.
    let Some(project) = project else { return Ok(open::report(&faults)) };
    let warehouse = open_warehouse(&project).await?;
    let listen = args.listen.clone().unwrap_or_else(|| project.flight_listen.value.clone());
    let (listener, address) = listen_on(&listen, LISTEN_HINT).await?;
    let mut reader = Reader::new(warehouse, &project.name.value, &project.timezone.value);
    let project = match project.pipelines.iter().flat_map(|pipeline| &pipeline.sources).any(|source| source.serve) {
        true => {
            let open = Arc::new(OpenProject::open(project, faults, Opening::ToRead).await?);
            let project = Arc::clone(&open.project);
            reader = reader.with_sources(open);
            project
        }
        false => Arc::new(project),
    };
    let reader = Arc::new(reader);
    say!("serving {} over Arrow Flight SQL at grpc://{address}", project.name.value);
    let shutdown = async {
        if let Err(error) = asked_to_end().await {
            tracing::error!(%error, "can't listen for signals");
            std::future::pending::<()>().await;
        }
    };
    flight::serve(listener, Arc::new(WarehouseTables::new(project, reader)?), shutdown).await?;
    Ok(0)
}

/// What helps where Flight SQL's address is taken.
pub(super) const LISTEN_HINT: &str = "`--listen HOST:PORT` takes another address";

/// Listens on an address of the form HOST:PORT; gives the port that the system chose where it is 0.
pub(super) async fn listen_on(listen: &str, hint: &'static str) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)
        .await
        .external(format!("can't listen on {listen}"))
        .map_err(|e| e.with("hint", hint))?;
    let address = listener.local_addr().external("can't read the address")?;
    Ok((listener, address))
}

//! Flight actions: prepared statements, cancelling, session options. Protocol only.

use std::sync::Arc;

use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, Command, ProstMessageExt,
};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::planning;
use super::service::{Service, decode_command, schema_bytes, text};
use super::sessions::{self, messages};
use super::sqlstate::{SqlError, SqlResult};
use super::statements::{Cancelled, Prepared};
use super::wire;

/// Actions and what they do, for ListActions.
pub(super) const KNOWN: [(&str, &str); 7] = [
    ("CreatePreparedStatement", "Plans a statement that can be run again with other parameters"),
    ("ClosePreparedStatement", "Forgets a prepared statement"),
    ("CancelQuery", "Stops a query"),
    ("CancelFlightInfo", "Stops a query"),
    ("SetSessionOptions", "Sets catalog, schema or read_level of this client's session, known by a cookie"),
    ("GetSessionOptions", "Catalog, schema and read_level of this client's session"),
    ("CloseSession", "Forgets this client's session"),
];

impl Service {
    /// Carries out an action.
    pub(super) async fn act(
        &self,
        headers: &MetadataMap,
        action: Action,
    ) -> SqlResult<Response<BoxStream<'static, Result<arrow_flight::Result, Status>>>> {
        let body = &action.body;
        let mut new_session = None;
        let result: Option<Vec<u8>> = match action.r#type.as_str() {
            "CreatePreparedStatement" => Some(self.prepare(headers, unpack(body)?).await?.as_any().encode_to_vec()),
            "ClosePreparedStatement" => {
                let request: ActionClosePreparedStatementRequest = unpack(body)?;
                self.statements.close(&text(&request.prepared_statement_handle)?);
                None
            }
            "CancelQuery" => {
                let request: ActionCancelQueryRequest = unpack(body)?;
                let status = self.cancel(decode::<FlightInfo>(&request.info)?)?;
                // The two enumerations have the same values.
                Some(ActionCancelQueryResult { result: status as i32 }.as_any().encode_to_vec())
            }
            "CancelFlightInfo" => {
                let info = decode::<CancelFlightInfoRequest>(body)?.info.unwrap_or_default();
                Some(CancelFlightInfoResult { status: self.cancel(info)? as i32 }.encode_to_vec())
            }
            "SetSessionOptions" => {
                let catalog = self.tables.catalog();
                let schemas = self.tables.session().await?.catalog(catalog).map_or(vec![], |c| c.schema_names());
                let (result, id) = self.sessions.set(headers, decode(body)?, catalog, &schemas);
                new_session = id;
                Some(result.encode_to_vec())
            }
            "GetSessionOptions" => {
                let state = self.session(headers).await?.state();
                let default = &state.config_options().catalog.default_schema;
                Some(self.sessions.get(headers, self.tables.catalog(), default).encode_to_vec())
            }
            "CloseSession" => {
                self.sessions.close(headers);
                Some(messages::CloseResult { status: 1 }.encode_to_vec())
            }
            "BeginTransaction" => {
                let _: ActionBeginTransactionRequest = unpack(body)?;
                return Err(SqlError::unsupported(
                    "a transaction: each statement sees one snapshot of all tables, which",
                ));
            }
            other => return Err(SqlError::unsupported(format!("the action {other}"))),
        };
        let results: Vec<_> = result.into_iter().map(|body| Ok(arrow_flight::Result::new(body))).collect();
        let mut response = Response::new(stream::iter(results).boxed());
        if let Some(id) = new_session {
            sessions::set_cookie(response.metadata_mut(), &id)?;
        }
        Ok(response)
    }

    async fn prepare(
        &self,
        headers: &MetadataMap,
        request: ActionCreatePreparedStatementRequest,
    ) -> SqlResult<ActionCreatePreparedStatementResult> {
        let session = self.session(headers).await?;
        let plan = self.tables.plan(&session, &planning::number_placeholders(&request.query)).await?;
        planning::only_reads(&plan)?;
        let parameters = planning::parameters(&plan)?;
        let schema = wire::result_schema(plan.schema(), self.tables.catalog());
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: ulid::Ulid::r#gen().to_string().into(),
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema: schema_bytes(&parameters)?,
        };
        let prepared = Prepared { sql: request.query, parameters: Arc::new(parameters), bound: Vec::new() };
        self.statements.prepare(text(&result.prepared_statement_handle)?, prepared)?;
        Ok(result)
    }

    fn cancel(&self, info: FlightInfo) -> SqlResult<CancelStatus> {
        let ticket = info.endpoint.into_iter().find_map(|endpoint| endpoint.ticket);
        let ticket = ticket.ok_or_else(|| SqlError::protocol("a FlightInfo without a ticket"))?;
        match decode_command(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => match self.statements.cancel(&text(&ticket.statement_handle)?) {
                Some(Cancelled::Forgotten) => Ok(CancelStatus::Cancelled),
                Some(Cancelled::Stopping) => Ok(CancelStatus::Cancelling),
                None => Err(SqlError::new("26000", "this query has ended, or never was")),
            },
            _ => Ok(CancelStatus::NotCancellable),
        }
    }
}

fn unpack<M: ProstMessageExt>(body: &[u8]) -> SqlResult<M> {
    let any: Any = decode(body)?;
    let message = any.unpack().map_err(|error| SqlError::protocol(error.to_string()))?;
    message.ok_or_else(|| SqlError::protocol(format!("expected {}", M::type_url())))
}

fn decode<M: Message + Default>(body: &[u8]) -> SqlResult<M> {
    M::decode(body).map_err(|error| SqlError::protocol(error.to_string()))
}

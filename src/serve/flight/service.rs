//! The Flight protocol: which message asks for what. Decides nothing about SQL, types or catalogs.
//!
//! Written on the generated service and not on `FlightSqlService`, which fixes GetSchema and PollFlightInfo as
//! unimplemented and has no sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::execute::{self, DataStream};
use super::sessions::Sessions;
use super::sqlstate::{SqlError, SqlResult};
use super::statements::{Pinned, Prepared, Statements};
use super::{catalog, planning, sql_info, wire};
use crate::limits;
use crate::serve::{QueryInfo, QueryStatus, ServedTables};

/// One server's state.
pub(super) struct Service {
    pub(super) tables: Arc<dyn ServedTables>,
    pub(super) statements: Arc<Statements>,
    pub(super) sessions: Sessions,
    pub(super) turns: Arc<Semaphore>,
    pub(super) runtime: Handle,
}

type Answer<T> = Result<Response<T>, Status>;
type Many<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    /// Schema and ticket of what `command` asks for; statements are planned and pinned.
    async fn info(&self, headers: &MetadataMap, descriptor: FlightDescriptor) -> SqlResult<FlightInfo> {
        let command = decode_command(&descriptor.cmd)?;
        let (schema, ticket) = match command {
            Command::CommandStatementQuery(query) => self.pin(self.plan(headers, query.query).await)?,
            Command::CommandPreparedStatementQuery(query) => {
                self.pin(self.plan_prepared(headers, &text(&query.prepared_statement_handle)?).await)?
            }
            other => (self.listing_schema(&other)?, descriptor.cmd.clone()),
        };
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
        let info = FlightInfo::new().try_with_schema(&schema)?.with_endpoint(endpoint).with_ordered(true);
        Ok(info.with_descriptor(descriptor).with_total_records(-1).with_total_bytes(-1))
    }

    fn pin(&self, statement: SqlResult<Pinned>) -> SqlResult<(SchemaRef, bytes::Bytes)> {
        let statement = statement?;
        let ticket = TicketStatementQuery { statement_handle: statement.id.clone().into() };
        let schema = Arc::clone(&statement.schema);
        self.statements.pin(statement)?;
        Ok((schema, ticket.as_any().encode_to_vec().into()))
    }

    /// Plans a statement over a new snapshot. A failure goes into the query log: it is all that there will be of it.
    pub(super) async fn plan(&self, headers: &MetadataMap, sql: String) -> SqlResult<Pinned> {
        self.plan_with(headers, sql, None).await
    }

    async fn plan_prepared(&self, headers: &MetadataMap, handle: &str) -> SqlResult<Pinned> {
        let prepared = self.statements.prepared(handle)?;
        self.plan_with(headers, prepared.sql.clone(), Some(prepared)).await
    }

    async fn plan_with(&self, headers: &MetadataMap, sql: String, prepared: Option<Prepared>) -> SqlResult<Pinned> {
        let (started, started_at_us, id) = (Instant::now(), now_us(), ulid::Ulid::r#gen().to_string());
        let planned = self.plan_over_snapshot(headers, &sql, prepared.as_ref()).await;
        match planned {
            Ok((session, plans, schema)) => Ok(Pinned { id, sql, started_at_us, started, session, plans, schema }),
            Err(error) => {
                let (seconds, told) = (started.elapsed().as_secs_f64(), Some(error.to_string()));
                let status = QueryStatus::Failed;
                self.tables.query_finished(QueryInfo { id, sql, started_at_us, seconds, rows: 0, status, error: told });
                Err(error)
            }
        }
    }

    async fn plan_over_snapshot(
        &self,
        headers: &MetadataMap,
        sql: &str,
        prepared: Option<&Prepared>,
    ) -> SqlResult<(datafusion::prelude::SessionContext, Vec<datafusion::logical_expr::LogicalPlan>, SchemaRef)> {
        let session = self.session(headers).await?;
        let plan = self.tables.plan(&session, &planning::number_placeholders(sql)).await?;
        planning::only_reads(&plan)?;
        let parameters = planning::parameters(&plan)?;
        let bound = prepared.map_or(&[][..], |prepared| &prepared.bound);
        let plans = if parameters.fields().is_empty() && bound.iter().all(|rows| rows.num_columns() == 0) {
            vec![plan]
        } else {
            let bindings = planning::bindings(&parameters, bound)?;
            if bindings.is_empty() {
                return Err(planning::wrong_count(parameters.fields().len(), 0));
            }
            bindings.iter().map(|values| planning::bind(&plan, values)).collect::<SqlResult<Vec<_>>>()?
        };
        let schema = planning::common_schema(&plans, self.tables.catalog())?;
        Ok((session, plans, schema))
    }

    pub(super) async fn session(&self, headers: &MetadataMap) -> SqlResult<datafusion::prelude::SessionContext> {
        let session = self.tables.session().await?;
        self.sessions.apply(headers, &session);
        Ok(session)
    }

    /// The schema alone: nothing is pinned, parameters may be open.
    async fn schema(&self, headers: &MetadataMap, descriptor: &FlightDescriptor) -> SqlResult<SchemaRef> {
        let sql = match decode_command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => query.query,
            Command::CommandPreparedStatementQuery(query) => {
                self.statements.prepared(&text(&query.prepared_statement_handle)?)?.sql
            }
            other => return self.listing_schema(&other),
        };
        let session = self.session(headers).await?;
        let plan = self.tables.plan(&session, &planning::number_placeholders(&sql)).await?;
        planning::only_reads(&plan)?;
        Ok(wire::result_schema(plan.schema(), self.tables.catalog()))
    }

    fn listing_schema(&self, command: &Command) -> SqlResult<SchemaRef> {
        Ok(match command.clone() {
            Command::CommandGetCatalogs(command) => command.into_builder().schema(),
            Command::CommandGetDbSchemas(command) => command.into_builder().schema(),
            Command::CommandGetTables(command) => catalog::tables_schema(command),
            Command::CommandGetTableTypes(command) => command.into_builder().schema(),
            Command::CommandGetPrimaryKeys(_) => catalog::primary_keys_schema(),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => catalog::foreign_keys_schema(),
            Command::CommandGetSqlInfo(_) => {
                Arc::new(arrow_flight::sql::metadata::SqlInfoDataBuilder::schema().clone())
            }
            Command::CommandGetXdbcTypeInfo(_) => sql_info::type_info()?.schema(),
            other => return Err(refused(&other)),
        })
    }

    async fn listing(&self, headers: &MetadataMap, command: Command) -> SqlResult<RecordBatch> {
        let tables = self.tables.as_ref();
        match command {
            Command::CommandGetCatalogs(command) => catalog::catalogs(command, tables),
            Command::CommandGetDbSchemas(command) => catalog::schemas(command, tables).await,
            Command::CommandGetTables(command) => catalog::list_tables(command, tables).await,
            Command::CommandGetTableTypes(command) => catalog::table_types(command),
            Command::CommandGetPrimaryKeys(command) => catalog::primary_keys(command, tables).await,
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Ok(catalog::foreign_keys()),
            Command::CommandGetSqlInfo(command) => {
                let session = self.session(headers).await?;
                let known = sql_info::sql_info(&session)?;
                command.into_builder(&known).build().map_err(catalog::internal)
            }
            Command::CommandGetXdbcTypeInfo(command) => {
                sql_info::type_info()?.record_batch(command.data_type).map_err(catalog::internal)
            }
            other => Err(refused(&other)),
        }
    }

    async fn get(&self, headers: &MetadataMap, ticket: &Ticket) -> SqlResult<DataStream> {
        let statement = match decode_command(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => self.statements.take(&text(&ticket.statement_handle)?)?,
            Command::CommandStatementQuery(query) => self.plan(headers, query.query).await?,
            Command::CommandPreparedStatementQuery(query) => {
                self.plan_prepared(headers, &text(&query.prepared_statement_handle)?).await?
            }
            other => return execute::one_batch(&self.listing(headers, other).await?),
        };
        let patience = Duration::from_secs(limits::FLIGHT_QUEUE_SECONDS);
        let turn = tokio::time::timeout(patience, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let running = limits::FLIGHT_RUNNING_QUERIES;
            return Err(SqlError::new("53300", format!("{running} queries are running; try again later")));
        };
        let (statements, tables) = (Arc::clone(&self.statements), Arc::clone(&self.tables));
        Ok(execute::run(statement, statements, tables, turn, &self.runtime))
    }
}

fn refused(command: &Command) -> SqlError {
    match command {
        Command::CommandStatementUpdate(update) => SqlError::read_only(planning::first_words(&update.query)),
        Command::CommandPreparedStatementUpdate(_) => {
            SqlError::new("25006", "this statement only reads: run it as a query, not as an update")
        }
        Command::CommandStatementIngest(ingest) => {
            SqlError::read_only(format!("ingest into {} is refused", ingest.table))
        }
        Command::CommandStatementSubstraitPlan(_) => SqlError::unsupported("Substrait"),
        other => SqlError::unsupported(format!("the command {}", other.type_url())),
    }
}

pub(super) fn decode_command(bytes: &[u8]) -> SqlResult<Command> {
    let any = Any::decode(bytes).map_err(|error| SqlError::protocol(format!("not a Flight SQL command: {error}")))?;
    Command::try_from(any).map_err(|error| SqlError::protocol(error.to_string()))
}

pub(super) fn text(bytes: &[u8]) -> SqlResult<String> {
    let known = std::str::from_utf8(bytes).map(str::to_owned);
    known.map_err(|_| SqlError::new("26000", "this handle wasn't made by this server"))
}

/// A schema as the protocol's `bytes` fields hold it.
pub(super) fn schema_bytes(schema: &arrow::datatypes::Schema) -> SqlResult<bytes::Bytes> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options))?;
    Ok(message.0)
}

fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Many<HandshakeResponse>;
    type ListFlightsStream = Many<FlightInfo>;
    type DoGetStream = DataStream;
    type DoPutStream = Many<PutResult>;
    type DoExchangeStream = Many<FlightData>;
    type DoActionStream = Many<arrow_flight::Result>;
    type ListActionsStream = Many<ActionType>;

    /// No users can be configured, so whoever comes is let in; drivers that were given a name and password
    /// insist on a bearer token in return.
    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        const TOKEN: &str = "anonymous";
        let answer = HandshakeResponse { protocol_version: 0, payload: TOKEN.into() };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        let bearer = format!("Bearer {TOKEN}").parse().map_err(|_| SqlError::new("XX000", "the token isn't ASCII"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        Err(SqlError::unsupported("ListFlights; ask for tables with GetTables").into())
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        let (headers, _, descriptor) = request.into_parts();
        Ok(Response::new(self.info(&headers, descriptor).await?))
    }

    /// Everything is ready to be fetched at once: execution begins with DoGet.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        let (headers, _, descriptor) = request.into_parts();
        let info = self.info(&headers, descriptor).await?;
        Ok(Response::new(PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let (headers, _, descriptor) = request.into_parts();
        let schema = self.schema(&headers, &descriptor).await?;
        Ok(Response::new(SchemaResult { schema: schema_bytes(&schema)? }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let (headers, _, ticket) = request.into_parts();
        Ok(Response::new(self.get(&headers, &ticket).await?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let result = self.put(request.into_inner()).await?;
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        Err(SqlError::unsupported("DoExchange").into())
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let (headers, _, action) = request.into_parts();
        self.act(&headers, action).await.map_err(Status::from)
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        let known = super::actions::KNOWN.iter().map(|(name, description)| {
            Ok(ActionType { r#type: (*name).to_owned(), description: (*description).to_owned() })
        });
        Ok(Response::new(stream::iter(known.collect::<Vec<_>>()).boxed()))
    }
}

impl Service {
    /// Binds parameters; refuses whatever would write.
    async fn put(&self, mut messages: Streaming<FlightData>) -> SqlResult<PutResult> {
        let broken = |status: Status| SqlError::protocol(status.message().to_owned());
        let first = messages.message().await.map_err(broken)?.ok_or_else(|| SqlError::protocol("an empty DoPut"))?;
        let descriptor =
            first.flight_descriptor.as_ref().ok_or_else(|| SqlError::protocol("DoPut without a descriptor"))?;
        let Command::CommandPreparedStatementQuery(query) = decode_command(&descriptor.cmd)? else {
            return Err(refused(&decode_command(&descriptor.cmd)?));
        };
        let handle = text(&query.prepared_statement_handle)?;
        let expected = self.statements.prepared(&handle)?.parameters;
        let all = stream::iter([Ok(first)]).chain(messages).map(|message| message.map_err(Into::into));
        let mut batches = arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(all);
        let (mut rows, mut count) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| SqlError::protocol(format!("unreadable parameters: {error}")))?;
            if batch.num_columns() != expected.fields().len() {
                return Err(planning::wrong_count(expected.fields().len(), batch.num_columns()));
            }
            count += batch.num_rows();
            if count > limits::FLIGHT_PARAMETER_ROWS {
                let most = limits::FLIGHT_PARAMETER_ROWS;
                return Err(SqlError::new("53400", format!("more than {most} rows of parameters for one query")));
            }
            rows.push(batch);
        }
        self.statements.bind(&handle, rows)?;
        let result = arrow_flight::sql::DoPutPreparedStatementResult {
            prepared_statement_handle: Some(query.prepared_statement_handle),
        };
        Ok(PutResult { app_metadata: result.encode_to_vec().into() })
    }
}

//! Flight SQL, spoken by the real JDBC and ADBC drivers and by plain Flight clients, over tables in memory and in Parquet.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryViewArray, Date32Array, Decimal128Array, DictionaryArray, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, CommandGetXdbcTypeInfo, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelStatus, FlightDescriptor, FlightInfo, Ticket};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use prost::Message as _;
use tidemill::error::Result;
use tidemill::serve::flight::{client, serve};
use tidemill::serve::{QueryInfo, QueryStatus, ServedTables};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::house::root;
use crate::process::Bounded;
use crate::python;

/// A project `shop` with a few tables; `version` has one row, which counts sessions begun after [`Shop::commit`].
struct Shop {
    sales: PathBuf,
    version: AtomicI64,
    log: Mutex<Vec<QueryInfo>>,
    _folder: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sales = folder.path().join("sales.parquet");
        let batch = sales_rows();
        let file = std::fs::File::create(&sales).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        Self { sales, version: AtomicI64::new(1), log: Mutex::default(), _folder: folder }
    }

    fn commit(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits for the log's entry of a query that contains `part`.
    async fn logged(&self, part: &str) -> QueryInfo {
        for _ in 0..600 {
            if let Some(found) = self.log.lock().unwrap().iter().find(|info| info.sql.contains(part)) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no query with {part} in the log: {:?}", self.log.lock().unwrap());
    }
}

fn sales_rows() -> RecordBatch {
    let zone = Some("America/Sao_Paulo".into());
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("customer", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("day", DataType::Date32, true),
        Field::new("placed", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("paid", DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), true),
        Field::new("units", DataType::Int32, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec![Some("Ann"), Some("José \"Zé\""), None])),
        Arc::new(
            Decimal128Array::from(vec![Some(1050), Some(9_999_999_999), None]).with_precision_and_scale(12, 2).unwrap(),
        ),
        // 2018-08-31, 2018-09-01
        Arc::new(Date32Array::from(vec![Some(17774), Some(17775), None])),
        // 2018-08-31T22:30:00, 1969-12-31T23:59:59.999
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_535_754_600_000_000), Some(-1_000), None])),
        // 2018-09-01T01:30:00.25Z, 2018-09-01T00:00:00Z
        Arc::new(
            TimestampMicrosecondArray::from(vec![Some(1_535_765_400_250_000), Some(1_535_760_000_000_000), None])
                .with_timezone_opt(zone),
        ),
        Arc::new(Int32Array::from(vec![Some(3), Some(0), None])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn memory(columns: Vec<(&str, ArrayRef)>) -> Arc<MemTable> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
}

fn many() -> Arc<MemTable> {
    let pad = "x".repeat(60);
    let numbers = Int64Array::from_iter_values(1..=200_000);
    let pads = StringArray::from_iter_values((0..200_000).map(|_| pad.as_str()));
    memory(vec![("n", Arc::new(numbers)), ("pad", Arc::new(pads))])
}

#[async_trait::async_trait]
impl ServedTables for Shop {
    fn catalog(&self) -> &str {
        "shop"
    }

    async fn session(&self) -> Result<SessionContext> {
        let config = SessionConfig::new().with_default_catalog_and_schema("shop", "main").with_information_schema(true);
        let session = SessionContext::new_with_config(config);
        let catalog = MemoryCatalogProvider::new();
        let (main, system) = (MemorySchemaProvider::new(), MemorySchemaProvider::new());
        let kinds: DictionaryArray<Int32Type> = vec!["a", "b", "a"].into_iter().collect();
        let raw = BinaryViewArray::from_iter_values([&b"x"[..], b"yy", b""]);
        main.register_table("bag".into(), memory(vec![("kind", Arc::new(kinds)), ("raw", Arc::new(raw))])).unwrap();
        main.register_table("many".into(), many()).unwrap();
        let version = Int64Array::from(vec![self.version.load(Ordering::SeqCst)]);
        main.register_table("version".into(), memory(vec![("n", Arc::new(version))])).unwrap();
        let path = self.sales.to_str().unwrap();
        session.register_catalog("parquet", Arc::new(MemoryCatalogProvider::new()));
        session.catalog("parquet").unwrap().register_schema("s", Arc::new(MemorySchemaProvider::new())).unwrap();
        session.register_parquet("parquet.s.sales", path, ParquetReadOptions::default()).await.unwrap();
        let sales = session.table_provider("parquet.s.sales").await.unwrap();
        main.register_table("sales".into(), sales).unwrap();
        let runs = StringArray::from(vec!["01"]);
        system.register_table("runs".into(), memory(vec![("run", Arc::new(runs))])).unwrap();
        catalog.register_schema("main", Arc::new(main)).unwrap();
        catalog.register_schema("tidemill", Arc::new(system)).unwrap();
        session.register_catalog("shop", Arc::new(catalog));
        Ok(session)
    }

    async fn keys(&self) -> Result<Vec<(String, Vec<String>)>> {
        Ok(vec![("sales".into(), vec!["day".into(), "id".into()]), ("version".into(), vec!["n".into()])])
    }

    fn query_finished(&self, info: QueryInfo) {
        self.log.lock().unwrap().push(info);
    }
}

/// A server on a free port.
struct Server {
    shop: Arc<Shop>,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let shop = Arc::new(Shop::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let tables = Arc::clone(&shop) as Arc<dyn ServedTables>;
        let task = tokio::spawn(serve(listener, tables, async {
            let _ = stopped.await;
        }));
        Self { shop, port, stop: Some(stop), task }
    }

    fn url(&self) -> String {
        format!("grpc://127.0.0.1:{}", self.port)
    }

    async fn flight(&self) -> Client {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap().connect().await.unwrap();
        FlightSqlServiceClient::new(channel)
    }

    async fn rows(&self, sql: &str) -> Result<String> {
        let (_, rows) = client::query(&self.url(), sql).await?;
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        Ok(arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
    }
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

type Client = FlightSqlServiceClient<Channel>;

async fn cancel(flight: &mut Client, info: &FlightInfo) -> std::result::Result<CancelStatus, tonic::Status> {
    let request = CancelFlightInfoRequest { info: Some(info.clone()) };
    let action = Action::new("CancelFlightInfo", request.encode_to_vec());
    let answer = flight.inner_mut().do_action(action).await?.into_inner().message().await?.unwrap();
    Ok(arrow_flight::CancelFlightInfoResult::decode(answer.body).unwrap().status())
}

fn installed(path: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "{} is missing; scripts/test installs it", path.display());
    path
}

/// Runs a driver's program and gives its lines. It must not take the runtime's thread: the server runs there.
async fn output(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.finish()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{lines}\n{errors}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_sees_everything_right() {
    let driver = installed("target/drivers/flight-sql-jdbc-driver-18.3.0.jar");
    let server = Server::start().await;
    let classes = tempfile::tempdir().unwrap();
    let mut javac = Command::new("javac");
    javac.arg("-d").arg(classes.path()).arg(root().join("tests/support/jdbc/Check.java"));
    output(javac).await;
    let mut java = Command::new("java");
    let path = std::env::join_paths([classes.path(), driver.as_path()]).unwrap();
    java.arg("--add-opens=java.base/java.nio=ALL-UNNAMED").arg("-cp").arg(path).arg("Check");
    java.arg(format!("jdbc:arrow-flight-sql://127.0.0.1:{}/?useEncryption=false", server.port));
    insta::assert_snapshot!("jdbc", output(java).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_sees_everything_right() {
    let server = Server::start().await;
    let mut command = python::script("adbc_check.py");
    command.arg(server.url());
    insta::assert_snapshot!("adbc", output(command).await);
    assert_eq!(server.shop.logged("cross join").await.status, QueryStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_reads_plain_types_and_tells_refusals() {
    let server = Server::start().await;
    let (schema, rows) = client::query(&server.url(), "select kind, raw from bag order by raw").await.unwrap();
    let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&DataType::Utf8, &DataType::Binary]);
    let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    assert_eq!(batches[0].schema().field(0).data_type(), &DataType::Utf8);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let refusal = server.rows("select * from nowhere").await.unwrap_err();
    assert!(refusal.to_string().starts_with("SQLSTATE 42P01"), "{refusal}");
    assert_eq!(refusal.exit_code(), 2);
    let unreachable = client::query("grpc://127.0.0.1:1", "select 1").await.err().unwrap();
    assert_eq!(unreachable.exit_code(), 3);
    let misspelt = client::query("127.0.0.1:1", "select 1").await.err().unwrap();
    assert_eq!(misspelt.exit_code(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_pinned_from_planning_to_the_one_fetch() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let info = flight.execute("select n from version".into(), None).await.unwrap();
    server.shop.commit();
    let batches: Vec<RecordBatch> = flight.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches[0].column(0).as_ref(), &Int64Array::from(vec![1]));
    let again = flight.do_get(ticket(&info)).await.err().unwrap().to_string();
    assert!(again.contains("SQLSTATE 26000"), "{again}");
    assert!(server.rows("select n from version").await.unwrap().contains("| 2 |"));
    let logged = server.shop.logged("from version").await;
    assert_eq!((logged.status, logged.rows, logged.error), (QueryStatus::Ok, 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_stay_below_what_grpc_allows() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let info = flight.execute("select n, pad from many".into(), None).await.unwrap();
    let mut messages = flight.inner_mut().do_get(ticket(&info)).await.unwrap().into_inner();
    let (mut count, mut largest) = (0, 0);
    while let Some(message) = messages.message().await.unwrap() {
        count += 1;
        largest = largest.max(message.encoded_len());
    }
    assert!(largest < 4 << 20, "{largest} bytes");
    // The schema, and 200,000 rows of about 80 bytes: neither one message nor crumbs.
    assert!((5..=60).contains(&count), "{count} messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_its_query() {
    let server = Server::start().await;
    let endless = "select a.n from many a cross join many b";
    let (_, mut rows) = client::query(&server.url(), endless).await.unwrap();
    rows.try_next().await.unwrap().unwrap();
    drop(rows);
    let logged = server.shop.logged("cross join").await;
    assert_eq!((logged.status, logged.error), (QueryStatus::Cancelled, None));
    // One that hasn't a row to show yet, neither.
    let (_, rows) = client::query(&server.url(), "select sum(a.n + b.n) from many a cross join many b").await.unwrap();
    drop(rows);
    assert_eq!(server.shop.logged("sum(").await.status, QueryStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_reaches_queries_begun_and_not_begun() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let info = flight.execute("select n from version".into(), None).await.unwrap();
    assert_eq!(cancel(&mut flight, &info).await.unwrap(), CancelStatus::Cancelled);
    assert!(flight.do_get(ticket(&info)).await.err().unwrap().to_string().contains("SQLSTATE 26000"));
    let info = flight.execute("select a.n from many a cross join many b".into(), None).await.unwrap();
    let mut rows = flight.do_get(ticket(&info)).await.unwrap();
    rows.try_next().await.unwrap().unwrap();
    assert_eq!(cancel(&mut flight, &info).await.unwrap(), CancelStatus::Cancelling);
    let told = rows.try_for_each(|_| async { Ok(()) }).await.unwrap_err().to_string();
    assert!(told.contains("SQLSTATE 57014"), "{told}");
    let logged = server.shop.logged("cross join").await;
    assert_eq!(logged.status, QueryStatus::Cancelled);
    assert!(cancel(&mut flight, &info).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_logged_with_what_was_told() {
    let server = Server::start().await;
    server.rows("select 1 / (n - 1) from version").await.unwrap_err();
    let logged = server.shop.logged("1 / (n").await;
    assert_eq!(logged.status, QueryStatus::Failed);
    assert!(logged.error.unwrap().starts_with("SQLSTATE 22012"));
    server.rows("select nothing").await.unwrap_err();
    assert!(server.shop.logged("nothing").await.error.unwrap().starts_with("SQLSTATE 42703"));
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_and_poll_answer_like_flight_info() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let command = CommandStatementQuery { query: "select day, amount from sales".into(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let schema = flight.inner_mut().get_schema(descriptor.clone()).await.unwrap().into_inner();
    let schema = Schema::try_from(&schema).unwrap();
    let poll = flight.inner_mut().poll_flight_info(descriptor).await.unwrap().into_inner();
    assert_eq!(poll.flight_descriptor, None);
    assert_eq!(poll.info.unwrap().try_decode_schema().unwrap(), schema);
    assert_eq!(schema.field(1).data_type(), &DataType::Decimal128(12, 2));
    assert_eq!(schema.field(1).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "decimal");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_transactions_and_several_statements_are_refused() {
    let server = Server::start().await;
    for (sql, state) in [
        ("insert into nowhere values (1)", "25006"),
        ("explain analyze insert into version values (1)", "25006"),
        ("create view v as select 1", "25006"),
        ("create external table t stored as csv location '/etc/passwd'", "25006"),
        ("copy (select 1) to '/tmp/out.csv'", "25006"),
        ("set datafusion.execution.batch_size = 1", "25006"),
        ("select 1; select 2", "42601"),
        ("", "42601"),
        ("select * from nowhere.nothing.t", "42P01"),
        ("select day + true from sales", "42"),
        ("select n from version where n = $1", "07001"),
        ("select cast('x' as bigint)", "22018"),
    ] {
        let refusal = server.rows(sql).await.expect_err(sql).to_string();
        assert!(refusal.starts_with(&format!("SQLSTATE {state}")), "{sql}: {refusal}");
    }
    for sql in ["show tables", "explain select 1", "values (1)", "describe version", "select 1;"] {
        server.rows(sql).await.expect(sql);
    }
    let begin = ActionBeginTransactionRequest {}.as_any().encode_to_vec();
    let mut flight = server.flight().await;
    let refusal = flight.inner_mut().do_action(Action::new("BeginTransaction", begin)).await.unwrap_err();
    assert!(refusal.message().starts_with("SQLSTATE 0A000"), "{refusal}");
    assert_eq!(refusal.metadata().get("sqlstate").unwrap(), "0A000");
    let update = flight.execute_update("delete from version".into(), None).await.unwrap_err().to_string();
    assert!(update.contains("SQLSTATE 25006"), "{update}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_running_queries_and_the_server() {
    let mut server = Server::start().await;
    let (_, mut rows) = client::query(&server.url(), "select a.n from many a cross join many b").await.unwrap();
    rows.try_next().await.unwrap().unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    let drain = Duration::from_secs(tidemill::limits::FLIGHT_DRAIN_SECONDS + 5);
    tokio::time::timeout(drain, &mut server.task).await.unwrap().unwrap().unwrap();
    assert_eq!(server.shop.logged("cross join").await.status, QueryStatus::Cancelled);
    assert!(client::query(&server.url(), "select 1").await.is_err());
}

/// `{"<name>": "<value>"}` as SetSessionOptions has it on the wire: a map entry of key and text value.
fn option(name: &str, value: &str) -> Vec<u8> {
    let part = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    part(0x0a, &[part(0x0a, name.as_bytes()), part(0x12, &part(0x0a, value.as_bytes()))].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn session_options_follow_the_cookie() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let set = |value| Action::new("SetSessionOptions", option("schema", value));
    for (level, is_known) in [("committed", true), ("live", true), ("dirty", false)] {
        let set = Action::new("SetSessionOptions", option("read_level", level));
        let mut answer = flight.inner_mut().do_action(set).await.unwrap();
        assert_eq!(answer.get_mut().message().await.unwrap().unwrap().body.is_empty(), is_known, "{level}");
    }
    let mut answer = flight.inner_mut().do_action(set("tidemill")).await.unwrap();
    let cookie = answer.metadata().get("set-cookie").unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(answer.get_mut().message().await.unwrap().unwrap().body.is_empty());
    let planned = |cookie: Option<&str>| {
        let command = CommandStatementQuery { query: "select run from runs".into(), transaction_id: None };
        let mut request = tonic::Request::new(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        if let Some(cookie) = cookie {
            request.metadata_mut().insert("cookie", cookie.parse().unwrap());
        }
        request
    };
    flight.inner_mut().get_flight_info(planned(Some(&format!("other=1; {cookie}")))).await.unwrap();
    let without = flight.inner_mut().get_flight_info(planned(None)).await.unwrap_err();
    assert!(without.message().starts_with("SQLSTATE 42P01"), "{without}");
    let mut wrong = flight.inner_mut().do_action(set("nowhere")).await.unwrap();
    assert!(!wrong.get_mut().message().await.unwrap().unwrap().body.is_empty());
    let mut close = tonic::Request::new(Action::new("CloseSession", ""));
    close.metadata_mut().insert("cookie", cookie.parse().unwrap());
    flight.inner_mut().do_action(close).await.unwrap();
    flight.inner_mut().get_flight_info(planned(Some(&cookie))).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_bind_type_and_close() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let sql = "select id, '?' as mark from sales where amount > ? /* ? */ and id = ? limit ?";
    let mut statement = flight.prepare(sql.into(), None).await.unwrap();
    let types: Vec<DataType> =
        statement.parameter_schema().unwrap().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Decimal128(12, 2), DataType::Int64, DataType::Int64], "amount, id, limit");
    let unbound = statement.execute().await.unwrap_err().to_string();
    assert!(unbound.contains("SQLSTATE 07001"), "{unbound}");
    let one = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let bound = [("1", Arc::clone(&one)), ("2", Arc::clone(&one)), ("3", one)];
    statement.set_parameters(RecordBatch::try_from_iter(bound).unwrap()).unwrap();
    let info = statement.execute().await.unwrap();
    let rows: Vec<RecordBatch> = flight.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(rows[0].column(0).as_ref(), &Int64Array::from(vec![1]));
    statement.close().await.unwrap();
    let refusal = flight.prepare("insert into sales values (1)".into(), None).await.unwrap_err().to_string();
    assert!(refusal.contains("SQLSTATE 25006"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_asked_for_in_milliseconds_and_compared_exactly() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let mut statement = flight.prepare("select id from sales where placed = $1".into(), None).await.unwrap();
    let asked = statement.parameter_schema().unwrap().field(0).data_type().clone();
    assert_eq!(asked, DataType::Timestamp(TimeUnit::Millisecond, None));
    // A column value within the same millisecond or second must not match.
    for (millis, expected) in [(-1, 1), (0, 0), (-2, 0)] {
        let value = Arc::new(TimestampMillisecondArray::from(vec![millis])) as ArrayRef;
        statement.set_parameters(RecordBatch::try_from_iter([("1", value)]).unwrap()).unwrap();
        let info = statement.execute().await.unwrap();
        let rows: Vec<RecordBatch> = flight.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{millis}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn type_info_lists_the_types_of_contracts() {
    let server = Server::start().await;
    let mut flight = server.flight().await;
    let info = flight.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    let rows: Vec<RecordBatch> = flight.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(info.try_decode_schema().unwrap(), *rows[0].schema());
    let names = rows[0].column_by_name("type_name").unwrap();
    let names: Vec<&str> = names.as_any().downcast_ref::<StringArray>().unwrap().iter().flatten().collect();
    for name in ["bigint", "decimal", "text", "date", "timestamp", "timestamptz"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

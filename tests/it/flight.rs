//! Flight SQL, spoken by the real JDBC and ADBC drivers and by plain Flight clients, over tables in memory and in Parquet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryViewArray, Date32Array, Decimal128Array, DictionaryArray, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{ActionBeginTransactionRequest, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelStatus, FlightDescriptor, FlightInfo, Ticket};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use prost::Message;
use tidemill::error::Result;
use tidemill::serve::flight::{client, serve};
use tidemill::serve::{QueryInfo, QueryStatus, ServedTables};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

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
        let sales = session.read_parquet(path, ParquetReadOptions::default()).await.unwrap().into_view();
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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

    async fn flight(&self) -> FlightSqlServiceClient<Channel> {
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn installed(path: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "{} is missing; scripts/test installs it", path.display());
    path
}

/// Runs a driver's program and gives its lines. It must not take the runtime's thread: the server runs there.
async fn output(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
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
    let python = installed("target/venv/bin/python");
    let server = Server::start().await;
    let mut command = Command::new(python);
    command.arg(root().join("tests/support/adbc_check.py")).arg(server.url());
    insta::assert_snapshot!("adbc", output(command).await);
    assert_eq!(server.shop.logged("cross join").await.status, QueryStatus::Cancelled);
}

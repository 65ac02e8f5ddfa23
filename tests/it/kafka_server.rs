//! A real Kafka: one node, broker and controller in one, on free ports of the loopback, over a folder that goes with it.

mod messages;
mod proxy;
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

pub use messages::{Message, Received};
pub use proxy::Proxy;

use crate::house::root;
use crate::process::{Bounded, Process};

/// How long anything may take that a broker does; a start takes four seconds where nothing else runs.
const LIMIT: Duration = Duration::from_secs(120);

/// Any will do: each broker is a cluster of its own.
const CLUSTER: &str = "dGlkZW1pbGwtdGVzdHMtMQ";
const USER: &str = "shop";
const PASSWORD: &str = "shop-secret";
const KEYS: &str = "keys.p12";
const KEYS_PASSWORD: &str = "keys-secret";
const CERTIFICATE: &str = "broker.pem";

/// Runs the command, and kills it by its id once standard input ends: when the value goes, and when the test binary ends,
/// however it does. Then the folder `REMOVE` goes, too: a static value's destructor never runs.
const GUARD: &str = r#"
exec 3<&0
"$@" 3<&- & broker=$!
{ cat >/dev/null; kill -9 "$broker"; } <&3 & watch=$!
wait "$broker"
status=$?
kill "$watch" 2>/dev/null
if [ "$status" = 137 ] && [ -n "$REMOVE" ]; then rm -rf "$REMOVE"; fi
"#;

/// How a broker is set up.
#[derive(Clone, Copy, Default)]
struct Setup {
    /// Listens for users with a password as well.
    is_secure: bool,
    is_shared: bool,
    /// The port of a proxy, by which clients are told to come.
    proxy: Option<u16>,
    /// Further lines.
    properties: &'static str,
}

/// A broker that ends with the value.
pub struct Kafka {
    /// None while it is stopped.
    guard: Option<Process>,
    port: u16,
    /// Where it listens for what comes through a proxy.
    proxied: u16,
    options: BTreeMap<String, String>,
    is_shared: bool,
    names: AtomicU64,
    folder: TempDir,
}

impl Kafka {
    /// Starts an empty broker, and comes back when it does all that clients may ask of it.
    pub fn start() -> Self {
        Self::start_as(Setup::default())
    }

    /// Starts a broker with further properties, a line each.
    pub fn start_with(properties: &'static str) -> Self {
        Self::start_as(Setup { properties, ..Setup::default() })
    }

    /// Starts a broker that is also reached through `proxy`: who begins there is told no other way.
    pub fn start_behind(proxy: &Proxy) -> Self {
        let kafka = Self::start_as(Setup { proxy: Some(proxy.port()), ..Setup::default() });
        kafka.reached_by(proxy);
        kafka
    }

    /// Has the proxy lead here.
    pub fn reached_by(&self, proxy: &Proxy) {
        proxy.lead_to(self.proxied);
    }

    /// The one broker of all tests that neither stop it nor ask which topics there are.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Kafka> =
            LazyLock::new(|| Kafka::start_as(Setup { is_shared: true, ..Setup::default() }));
        &SHARED
    }

    /// Starts a broker that only talks over TLS to users who say their password (SCRAM).
    pub fn start_secure() -> Self {
        Self::start_as(Setup { is_secure: true, ..Setup::default() })
    }

    fn start_as(setup: Setup) -> Self {
        // Somebody else may take a port between our asking for a free one and the broker's taking it.
        (0..5).find_map(|_| Self::try_start(setup)).expect("the broker ends at its start, five times")
    }

    fn try_start(setup: Setup) -> Option<Self> {
        let Setup { is_secure, is_shared, .. } = setup;
        let folder = tempfile::tempdir().unwrap();
        // Asked for together, so that they differ.
        let listeners = [0; 4].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(listeners);
        let mut options = BTreeMap::new();
        let mut properties = properties(folder.path(), ports, setup);
        if is_secure {
            make_keys(folder.path());
            properties += &secure_properties(folder.path());
            options = client_options(folder.path());
        }
        fs::write(folder.path().join("server.properties"), properties).unwrap();
        format_storage(folder.path(), is_secure);
        let port = ports[if is_secure { 2 } else { 1 }];
        let [.., proxied] = ports;
        let mut kafka = Self { guard: None, port, proxied, options, is_shared, names: AtomicU64::new(0), folder };
        kafka.launch().then(|| {
            kafka.warm_up();
            kafka
        })
    }

    /// Starts the process on data that are there. False where it ended by itself.
    fn launch(&mut self) -> bool {
        let folder = self.folder.path();
        let log = fs::File::create(folder.join("log.txt")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).args(java(256, "kafka.Kafka")).arg(folder.join("server.properties"));
        command.env("REMOVE", if self.is_shared { folder.as_os_str() } else { "".as_ref() });
        // An interrupt of the tests must not reach the guard before it has done its work.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.guard = Some(command.start());
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            if self.guard.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(self.folder.path().join("log.txt")).unwrap();
        panic!("the broker doesn't answer within {LIMIT:?}: {log}");
    }

    fn answers(&self) -> bool {
        if TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            return false;
        }
        let metadata = self.consumer("start").fetch_metadata(None, Duration::from_secs(5));
        metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
    }

    /// Has the broker make its own topics, for transactions and groups: the first who needs them waits seconds.
    fn warm_up(&self) {
        let producer: FutureProducer = self.config().set("transactional.id", "warm-up").create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition("warm-up", 0);
        self.consumer("warm-up").committed_offsets(offsets, LIMIT).unwrap();
    }

    /// What clients are told as `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What else clients must be told, by librdkafka's names.
    pub fn options(&self) -> BTreeMap<String, String> {
        self.options.clone()
    }

    /// Kills the process; its data stay.
    pub fn stop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait();
        }
    }

    /// Starts the process again, at the same address and on the same data.
    pub fn resume(&mut self) {
        assert!(self.guard.is_none(), "only a stopped broker resumes");
        assert!(self.launch(), "{}", fs::read_to_string(self.folder.path().join("log.txt")).unwrap());
    }

    /// Kills the process and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    /// A name that no other topic of this broker has.
    pub fn topic(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a topic, and comes back when each partition takes messages.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        assert_eq!(made, [Ok(name.to_string())]);
        wait_until("each partition of the new topic has a leader", || self.partitions(name) == partitions);
    }

    /// Removes a topic, and comes back when nobody sees it any longer.
    pub fn delete_topic(&self, name: &str) {
        let gone = block_on(self.admin().delete_topics(&[name], &AdminOptions::new())).unwrap();
        assert_eq!(gone, [Ok(name.to_string())]);
        wait_until("the topic is gone", || self.partitions(name) == 0);
    }

    /// Removes a group with the offsets that it holds.
    pub fn delete_group(&self, name: &str) {
        let gone = block_on(self.admin().delete_groups(&[name], &AdminOptions::new())).unwrap();
        assert_eq!(gone, [Ok(name.to_string())]);
    }

    /// How many partitions a topic has that can be read: none where there is no such topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        let metadata = self.consumer("topics").fetch_metadata(None, LIMIT).unwrap();
        let partitions = metadata.topics().iter().filter(|t| t.name() == topic).flat_map(|t| t.partitions());
        partitions.filter(|partition| partition.leader() >= 0).count() as i32
    }

    /// Takes away a partition's messages before `before_offset`, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before_offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before_offset)).unwrap();
        let gone = block_on(self.admin().delete_records(&offsets, &AdminOptions::new())).unwrap();
        gone.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Where a group stands in a topic's partitions, of those in which it stands somewhere.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions(topic) {
            asked.add_partition(topic, partition);
        }
        let told = self.consumer(group).committed_offsets(asked, LIMIT).unwrap();
        let offsets = told.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        offsets.collect()
    }

    /// What every client needs.
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers()).extend(self.options());
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// A client that sees what is committed.
    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config.set("enable.partition.eof", "true").create().unwrap()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How the broker is set up, on ports for the controller, for clients, for clients with a password and for a proxy. It uses the
/// second one itself.
fn properties(folder: &Path, [controller, plain, secure, proxied]: [u16; 4], setup: Setup) -> String {
    let secure = if setup.is_secure { format!(",SASL_SSL://127.0.0.1:{secure}") } else { String::new() };
    let (proxied, advertised) = match setup.proxy {
        None => (String::new(), String::new()),
        Some(proxy) => {
            let told = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxy}\n");
            (format!(",PROXIED://127.0.0.1:{proxied}"), told)
        }
    };
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}{secure}{proxied}
{advertised}listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={}
# A test of a topic that isn't there must not make it.
auto.create.topics.enable=false
# Topics that the broker makes for itself: one copy, few partitions.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# Nobody else will join a group.
group.initial.rebalance.delay.ms=0
# After a kill the controller waits for so long before it takes the broker back.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# 128 MB otherwise.
log.cleaner.dedupe.buffer.size=2097152
{}
",
        folder.join("data").display(),
        setup.properties
    )
}

/// What TLS and passwords add.
fn secure_properties(folder: &Path) -> String {
    format!(
        "\
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location={}
ssl.keystore.password={KEYS_PASSWORD}
",
        folder.join(KEYS).display()
    )
}

/// Makes the broker's certificate, which is its own authority, and tells it to clients.
fn make_keys(folder: &Path) {
    let keytool = |task: &str| {
        let mut command = Command::new("keytool");
        command.current_dir(folder).args(["-keystore", KEYS, "-storepass", KEYS_PASSWORD, "-alias", "broker"]);
        succeed(command.args(task.split(' ')));
    };
    keytool(
        "-genkeypair -storetype PKCS12 -keyalg EC -groupname secp256r1 -validity 2 -dname CN=broker -ext SAN=IP:127.0.0.1",
    );
    keytool(&format!("-exportcert -rfc -file {CERTIFICATE}"));
}

fn client_options(folder: &Path) -> BTreeMap<String, String> {
    let certificate = folder.join(CERTIFICATE).display().to_string();
    let options = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
        ("ssl.ca.location", &certificate),
    ];
    options.map(|(name, value)| (name.to_string(), value.to_string())).into()
}

fn format_storage(folder: &Path, is_secure: bool) {
    let mut command = Command::new("java");
    command.args(&java(128, "kafka.tools.StorageTool")[1..]).args(["format", "--cluster-id", CLUSTER, "--config"]);
    command.arg(folder.join("server.properties"));
    if is_secure {
        command.args(["--add-scram", &format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]")]);
    }
    succeed(&mut command);
}

/// The command that runs one of Kafka's programs with so much memory, without the program's own arguments.
fn java(megabytes: u32, program: &str) -> Vec<String> {
    let jars = root().join("target/drivers/kafka-4.3.1");
    assert!(jars.exists(), "{} is missing: run scripts/install-drivers, which makes it", jars.display());
    let mut command: Vec<String> =
        ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"].map(str::to_string).into();
    command.push(format!("-Xmx{megabytes}m"));
    command.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_string());
    command.extend(["-cp".to_string(), format!("{}/*", jars.display()), program.to_string()]);
    command
}

fn succeed(command: &mut Command) {
    let output = command.finish();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {told}");
}

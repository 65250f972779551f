//! The fleet's buckets in JetStream's key-value store, and notices to workers.
//!
//! Every change states the revision that it replaces, so of two programs that change a record only
//! one succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, Context, kv, stream};
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt as _;

use crate::fleet::config::{EVENT_STREAM, EVENT_SUBJECT, FleetConfig};
use crate::fleet::error::FleetError;
use crate::fleet::records::{LeaseRecord, WorkerRecord, parse, to_json};
use crate::sink::nats::NatsConfig;
use crate::source::CameraConfig;

/// Bucket of the cameras: a record for each camera's name.
const CAMERAS: &str = "twintrack-cameras";
/// Bucket of the leases: a record for each camera that a worker has.
const LEASES: &str = "twintrack-leases";
/// Bucket of the workers' reports and of the coordinator's name.
const WORKERS: &str = "twintrack-workers";
/// Prefix of the workers' keys.
const WORKER_KEYS: &str = "worker.";
/// Key of the coordinator's name.
pub(super) const LEADER: &str = "coordinator";
/// Prefix of the subjects of notices, followed by a worker's id.
const NOTICES: &str = "twintrack.fleet.";
/// Time after which the stream no longer recognises a repeated event.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(300);
/// Timeout of a worker's requests. A worker that waits long loses its cameras to others.
pub const WORKER_REQUEST: Duration = Duration::from_secs(1);
/// Timeout of the requests of other programs.
pub const REQUEST: Duration = Duration::from_secs(10);
/// Timeout of a list of all records, in timeouts of a request.
const LIST: u32 = 10;
/// Reason of a list that is not complete in time.
const INCOMPLETE: &str = "it does not deliver all records";
/// Longest record in bytes; a worker's report names its cameras.
const RECORD_BYTES: i32 = 1 << 20;

/// A record with its revision and the server's time of its last change.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The record.
    pub record: T,
    /// Revision of its last change; revisions rise with every change in the bucket.
    pub revision: u64,
    /// Nanoseconds since 1970, by the server's clock.
    pub changed: i128,
}

/// A bucket of records of one type.
#[derive(Clone)]
pub struct Bucket<T> {
    store: kv::Store,
    /// Timeout of a request.
    request: Duration,
    record: std::marker::PhantomData<fn() -> T>,
}

/// A change of a record, as a [`Watch`] reports it.
#[derive(Debug)]
pub struct Change<T> {
    /// The key.
    pub key: String,
    /// The record; none if it was deleted or is invalid.
    pub record: Option<Versioned<T>>,
}

impl<T: Serialize + for<'de> Deserialize<'de>> Bucket<T> {
    fn new(store: kv::Store, request: Duration) -> Self {
        Bucket {
            store,
            request,
            record: std::marker::PhantomData,
        }
    }

    /// Reads a record; none if there is none.
    ///
    /// # Errors
    /// When the server does not answer, or the record is invalid.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned<T>>, FleetError> {
        let entry = within(self.request, "read a record", self.store.entry(key)).await?;
        entry
            .filter(|e| e.operation == kv::Operation::Put)
            .map(|e| versioned(&e))
            .transpose()
    }

    /// Writes a new record. Returns its revision.
    ///
    /// # Errors
    /// [`FleetError::Changed`] if there is one already; another error if the server does not answer.
    pub async fn create(&self, key: &str, record: &T) -> Result<u64, FleetError> {
        let created = self.store.create(key, to_json(record).into()).await;
        created.map_err(|e| match e.kind() {
            kv::CreateErrorKind::AlreadyExists => FleetError::Changed(key.into()),
            _ => FleetError::request("write a record", e),
        })
    }

    /// Replaces the record of a revision. Returns the new revision.
    ///
    /// # Errors
    /// [`FleetError::Changed`] if there is another revision; another error if the server does not
    /// answer, and then the record may have been replaced.
    pub async fn update(&self, key: &str, record: &T, revision: u64) -> Result<u64, FleetError> {
        let updated = self
            .store
            .update(key, to_json(record).into(), revision)
            .await;
        updated.map_err(|e| match e.kind() {
            kv::UpdateErrorKind::WrongLastRevision => FleetError::Changed(key.into()),
            _ => FleetError::request("write a record", e),
        })
    }

    /// Deletes the record of a revision.
    ///
    /// # Errors
    /// [`FleetError::Changed`] if there is another revision or none; another error if the server does
    /// not answer.
    pub async fn delete(&self, key: &str, revision: u64) -> Result<(), FleetError> {
        let deleted = self.store.delete_expect_revision(key, Some(revision)).await;
        let Err(error) = deleted else { return Ok(()) };
        // The client does not say why.
        match self.get(key).await? {
            Some(present) if present.revision == revision => {
                Err(FleetError::request("delete a record", error))
            }
            _ => Err(FleetError::Changed(key.into())),
        }
    }

    /// All records whose keys match a pattern, by key, and the changes from then on.
    ///
    /// # Errors
    /// When the server does not answer, or does not deliver all records.
    pub async fn watch(
        &self,
        pattern: &str,
    ) -> Result<(BTreeMap<String, Versioned<T>>, Watch<T>), FleetError> {
        let listing = tokio::time::timeout(LIST * self.request, self.list_and_watch(pattern));
        let listed = listing.await;
        listed.map_err(|_| FleetError::request("watch a bucket", INCOMPLETE))?
    }

    /// [`Self::watch`] without a timeout for the whole.
    async fn list_and_watch(
        &self,
        pattern: &str,
    ) -> Result<(BTreeMap<String, Versioned<T>>, Watch<T>), FleetError> {
        let fail = |e: &dyn std::fmt::Display| FleetError::request("watch a bucket", e);
        let watch = self.store.watch_with_history(pattern).await;
        let mut watch = Watch {
            changes: watch.map_err(|e| fail(&e))?,
            record: std::marker::PhantomData,
        };
        // Not by the number of messages that the consumer still has: while records change, the
        // server sometimes counts one too many. Nor by the newest revision: a record that is
        // replaced before it is delivered comes with a higher one.
        let mut missing = self.keys(pattern).await?;
        let mut records = BTreeMap::new();
        while !missing.is_empty() {
            let next = tokio::time::timeout(self.request, watch.changes.next()).await;
            let next = next.map_err(|_| fail(&INCOMPLETE))?;
            let entry = next.ok_or_else(|| fail(&"it has ended"))?;
            let change = change(&entry.map_err(|e| fail(&e))?);
            missing.remove(&change.key);
            match change.record {
                Some(record) => drop(records.insert(change.key, record)),
                None => drop(records.remove(&change.key)),
            }
        }
        Ok((records, watch))
    }

    /// The keys that match a pattern, those of deleted records included.
    async fn keys(&self, pattern: &str) -> Result<BTreeSet<String>, FleetError> {
        let fail = |e: &dyn std::fmt::Display| FleetError::request("list a bucket's keys", e);
        let subjects = format!("{}{pattern}", self.store.prefix);
        let subjects = self.store.stream.info_with_subjects(subjects).await;
        let mut subjects = subjects.map_err(|e| fail(&e))?;
        let mut keys = BTreeSet::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _messages) = subject.map_err(|e| fail(&e))?;
            keys.extend(subject.strip_prefix(&self.store.prefix).map(String::from));
        }
        Ok(keys)
    }

    /// All records whose keys match a pattern, by key.
    ///
    /// # Errors
    /// When the server does not answer, or does not deliver all records.
    pub async fn all(&self, pattern: &str) -> Result<BTreeMap<String, Versioned<T>>, FleetError> {
        Ok(self.watch(pattern).await?.0)
    }
}

/// The changes of a bucket.
pub struct Watch<T> {
    changes: kv::Watch,
    record: std::marker::PhantomData<fn() -> T>,
}

impl<T: for<'de> Deserialize<'de>> Watch<T> {
    /// Waits for the next change.
    ///
    /// # Errors
    /// When the server no longer reports changes.
    pub async fn next(&mut self) -> Result<Change<T>, FleetError> {
        match self.changes.next().await {
            Some(Ok(entry)) => Ok(change(&entry)),
            Some(Err(e)) => Err(FleetError::request("watch a bucket", e)),
            None => Err(FleetError::request("watch a bucket", "it has ended")),
        }
    }
}

/// The result of a request, at the latest after `limit`: the client's own timeout does not include
/// waiting until the request can be sent.
async fn within<T, E: std::fmt::Display>(
    limit: Duration,
    what: &'static str,
    request: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, FleetError> {
    let result = tokio::time::timeout(limit, request).await;
    let result = result.map_err(|e| FleetError::request(what, e))?;
    result.map_err(|e| FleetError::request(what, e))
}

fn versioned<T: for<'de> Deserialize<'de>>(entry: &kv::Entry) -> Result<Versioned<T>, FleetError> {
    Ok(Versioned {
        record: parse(&entry.key, &entry.value)?,
        revision: entry.revision,
        changed: entry.created.unix_timestamp_nanos(),
    })
}

fn change<T: for<'de> Deserialize<'de>>(entry: &kv::Entry) -> Change<T> {
    let record = match entry.operation {
        kv::Operation::Put => versioned(entry)
            .inspect_err(|error| tracing::error!(%error, "a record of the fleet is not used"))
            .ok(),
        kv::Operation::Delete | kv::Operation::Purge => None,
    };
    Change {
        key: entry.key.clone(),
        record,
    }
}

/// A connection to a fleet's server. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    client: Client,
    context: Context,
    /// The cameras, by name.
    pub cameras: Bucket<CameraConfig>,
    /// The leases, by camera.
    pub leases: Bucket<LeaseRecord>,
    /// The workers' reports, by [`worker_key`].
    pub workers: Bucket<WorkerRecord>,
    /// The coordinator's name.
    pub(super) leader: Bucket<String>,
}

/// Key of a worker's report.
pub fn worker_key(id: &str) -> String {
    format!("{WORKER_KEYS}{id}")
}

/// The worker's id in a key.
pub fn worker_id(key: &str) -> &str {
    key.strip_prefix(WORKER_KEYS).unwrap_or(key)
}

impl Fleet {
    /// Connects, and creates the buckets and the stream of events that are missing. `request` is
    /// the timeout of each later request: [`WORKER_REQUEST`] or [`REQUEST`].
    ///
    /// # Errors
    /// When the settings are invalid, the server cannot be reached, refuses the login, or has no
    /// JetStream.
    pub async fn connect(
        config: &FleetConfig,
        nats: Option<&NatsConfig>,
        request: Duration,
    ) -> Result<Self, FleetError> {
        let connection = config.connection(nats);
        let client = connection.connect().await?;
        let client = client.map_err(|reason| FleetError::Connect {
            server: connection.display(),
            reason,
        })?;
        let creating = jetstream::new(client.clone());
        for name in [CAMERAS, LEASES, WORKERS] {
            create_bucket(&creating, name, config.replicas).await?;
        }
        let events = config.events(nats);
        if events.stream.as_deref() == Some(EVENT_STREAM) {
            create_event_stream(&creating, config).await?;
        }
        let mut context = creating;
        context.set_timeout(request);
        let bucket = async |name: &str| {
            let bucket = context.get_key_value(name).await;
            bucket.map_err(|e| FleetError::request("open a bucket", e))
        };
        let workers = bucket(WORKERS).await?;
        let fleet = Fleet {
            cameras: Bucket::new(bucket(CAMERAS).await?, request),
            leases: Bucket::new(bucket(LEASES).await?, request),
            workers: Bucket::new(workers.clone(), request),
            leader: Bucket::new(workers, request),
            client,
            context,
        };
        Ok(fleet)
    }

    /// The context of JetStream.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The messages of subjects from now on, without JetStream: some may be missed.
    ///
    /// # Errors
    /// When the connection is closed, or the subscription cannot be sent in time.
    pub async fn subscribe(&self, subject: &str) -> Result<async_nats::Subscriber, FleetError> {
        let subscribe = self.client.subscribe(subject.to_string());
        within(WORKER_REQUEST, "subscribe", subscribe).await
    }

    /// Tells a worker that the records of these cameras concern it. The notice may get lost.
    pub(super) async fn notify(&self, worker: &str, cameras: &[String]) {
        let subject = format!("{NOTICES}{worker}");
        let publish = self.client.publish(subject, to_json(&cameras).into());
        if let Err(error) = within(WORKER_REQUEST, "notify a worker", publish).await {
            tracing::warn!(worker, %error, "cannot notify a worker; it is tried again");
        }
    }

    /// The notices to a worker.
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub(super) async fn notices(&self, worker: &str) -> Result<async_nats::Subscriber, FleetError> {
        self.subscribe(&format!("{NOTICES}{worker}")).await
    }
}

/// Creates a bucket, if it is missing. Not by `create_key_value`, which needs a server of version
/// 2.10. Records are read from the stream's leader (no `allow_direct`), because another server may
/// be behind.
async fn create_bucket(context: &Context, name: &str, replicas: usize) -> Result<(), FleetError> {
    let stream = stream::Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_message_size: RECORD_BYTES,
        num_replicas: replicas,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        ..stream::Config::default()
    };
    create_stream(context, stream).await
}

/// Creates a stream, if it is missing. A stream with fewer replicas gets the number in `config`.
async fn create_stream(context: &Context, config: stream::Config) -> Result<(), FleetError> {
    let fail = |e: &dyn std::fmt::Display| FleetError::request("create a stream", e);
    let replicas = config.num_replicas;
    let stream = context.get_or_create_stream(config).await;
    let present = stream.map_err(|e| fail(&e))?.cached_info().config.clone();
    if present.num_replicas >= replicas {
        return Ok(());
    }
    let raised = stream::Config {
        num_replicas: replicas,
        ..present
    };
    let updated = context.update_stream(raised).await;
    updated.map(drop).map_err(|e| fail(&e))
}

/// Creates the stream of events, if it is missing.
async fn create_event_stream(context: &Context, config: &FleetConfig) -> Result<(), FleetError> {
    let stream = stream::Config {
        name: EVENT_STREAM.into(),
        subjects: vec![format!("{EVENT_SUBJECT}.>")],
        num_replicas: config.replicas,
        max_age: Duration::from_secs_f64(config.keep_events),
        duplicate_window: DUPLICATE_WINDOW.min(Duration::from_secs_f64(config.keep_events)),
        ..stream::Config::default()
    };
    create_stream(context, stream).await
}

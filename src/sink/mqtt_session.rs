//! Delivery of a spool's events to an MQTT broker, over as many connections as it takes.
//!
//! A broker refuses an event for good in one of three ways: by its acknowledgement (MQTT 5, reason
//! 0x80 and above), by the longest packet that it states (MQTT 5), or by breaking off the
//! connection whenever it gets the event (MQTT 3.1.1, and brokers that answer a forbidden topic
//! so). The last is told from a network that fails by sending one event at a time after a break: an
//! event that is alone under way when [`BREAKS`] connections break is refused. It then goes to the
//! dead-letter file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::address::masked;
use crate::sink::delivery::Delivery;
use crate::sink::mqtt::Broker;
use crate::sink::mqtt_client::{Client, Failure, Signal, Signals, WINDOW, packet_size};
use crate::sink::spool::Kept;
use crate::trajectory::EventKind;

/// The broker may take so long to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// It may take so long to acknowledge an event.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);
/// Pauses between connections, seconds: the first and the longest.
const PAUSE: (f64, f64) = (0.5, 5.0);
/// So many connections in a row that break at an event show that the broker refuses it.
const BREAKS: u32 = 3;
/// So many events in a row of a topic that were refused by breaking show that it refuses the topic
/// ...
const DENIED: u32 = 2;
/// ... and for so long none of it is sent.
const DENIED_FOR: Duration = Duration::from_secs(300);
/// At most so many bytes are read from the spool at once.
const READ: usize = 4 << 20;

/// What is known of the broker beyond one connection.
#[derive(Debug, Default)]
struct Experience {
    /// While events up to this place are delivered, only one is under way at a time: one of them
    /// broke a connection.
    one_by_one: i64,
    /// The event that was alone under way when the last connections broke, and how many of them.
    /// None is the program's own status.
    suspect: Option<(Option<i64>, u32)>,
    /// The broker does not take the program's own status.
    no_status: bool,
    /// Topics of which events were refused by breaking: how many in a row, and the last time.
    denied: BTreeMap<String, (u32, Instant)>,
}

impl Experience {
    fn denies(&self, topic: &str) -> bool {
        self.denied
            .get(topic)
            .is_some_and(|(n, at)| *n >= DENIED && at.elapsed() < DENIED_FOR)
    }

    /// A connection has broken while only this was under way; whether the broker has shown that it
    /// refuses it.
    fn broke_at(&mut self, alone: Option<i64>) -> bool {
        let before = self
            .suspect
            .filter(|(who, _)| *who == alone)
            .map_or(0, |(_, n)| n);
        let shown = before + 1 >= BREAKS;
        self.suspect = (!shown).then_some((alone, before + 1));
        shown
    }
}

/// Delivers until the end.
pub(super) async fn deliver(broker: Broker, errand: Delivery) {
    let (mut pause, mut experience) = (PAUSE.0, Experience::default());
    let counts = &errand.spool.counts;
    loop {
        // Everything that was not acknowledged is sent again by a new client, from the first on:
        // rumqttc itself forgets what was under way when the broker has no session for it.
        let (client, signals, task) = broker.connect();
        let mut session = Session::new(&broker, &errand, &mut experience, client, signals);
        let ended = session.run().await;
        task.abort();
        let (left, was) = (
            session.left(),
            counts.connected.swap(false, Ordering::Relaxed),
        );
        let Err(Failure {
            reason: error,
            passes,
        }) = ended
        else {
            return;
        };
        counts.failures.fetch_add(1, Ordering::Relaxed);
        let address = masked(&broker.config.broker);
        if was {
            tracing::warn!(sink = "mqtt", broker = %address, error, "the connection to the broker has broken off; events wait on disk");
            if !passes {
                learn(&mut experience, left, &errand, &error).await;
            }
            pause = if passes || experience.suspect.is_some() {
                (2.0 * pause).min(PAUSE.1)
            } else {
                PAUSE.0
            };
        } else {
            tracing::warn!(sink = "mqtt", broker = %address, error, "the broker is not reached; events wait on disk");
            pause = (2.0 * pause).min(PAUSE.1);
        }
        tokio::time::sleep(Duration::from_secs_f64(
            pause * (0.8 + 0.4 * fastrand::f64()),
        ))
        .await;
    }
}

/// What a broken connection tells: several things under way, and the next tries them one by one;
/// only one, and it is suspected.
async fn learn(experience: &mut Experience, left: Left, errand: &Delivery, error: &str) {
    let Left {
        events,
        topic,
        status,
    } = left;
    match events.as_slice() {
        [] if status => {
            if experience.broke_at(None) {
                experience.no_status = true;
                tracing::error!(
                    sink = "mqtt",
                    error,
                    "the broker does not take the program's own status, TOPIC/status; it is not told any more"
                );
            }
        }
        [] => experience.suspect = None,
        &[alone] if !status => {
            experience.one_by_one = experience.one_by_one.max(alone);
            if experience.broke_at(Some(alone)) {
                let (n, at) = experience
                    .denied
                    .entry(topic)
                    .or_insert((0, Instant::now()));
                (*n, *at) = (*n + 1, Instant::now());
                errand
                    .refuse(
                        alone,
                        &format!(
                            "the broker breaks off the connection at it, {BREAKS} times: {error}"
                        ),
                    )
                    .await;
            }
        }
        several => {
            experience.one_by_one = several
                .iter()
                .copied()
                .fold(experience.one_by_one, i64::max)
        }
    }
}

/// What was not acknowledged when a connection ended.
struct Left {
    events: Vec<i64>,
    /// The topic of the last of them.
    topic: String,
    /// The program's own status was among it.
    status: bool,
}

/// One connection.
struct Session<'a> {
    broker: &'a Broker,
    errand: &'a Delivery,
    experience: &'a mut Experience,
    client: Client,
    signals: Signals,
    /// Longest packet that the broker takes, bytes.
    longest: usize,
    /// Handed to the client, not yet sent: their places in the spool, none for the program's own
    /// status.
    handed: VecDeque<Option<i64>>,
    /// Sent, by packet id.
    under_way: BTreeMap<u16, Option<i64>>,
    /// Events not acknowledged, and their topics.
    unsure: BTreeMap<i64, String>,
    /// The last event handed over.
    last: i64,
    /// When the broker last answered for an event, or nothing was under way.
    moved: Instant,
}

impl<'a> Session<'a> {
    fn new(
        broker: &'a Broker,
        errand: &'a Delivery,
        experience: &'a mut Experience,
        client: Client,
        signals: Signals,
    ) -> Self {
        let (handed, under_way, unsure) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Session {
            broker,
            errand,
            experience,
            client,
            signals,
            longest: usize::MAX,
            handed,
            under_way,
            unsure,
            last: 0,
            moved: Instant::now(),
        }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let connected = tokio::time::timeout(ANSWER, self.signals.recv())
            .await
            .map_err(|_| "no answer")?;
        match connected.ok_or("no connection")?? {
            Signal::Connected(longest) => self.longest = longest.unwrap_or(usize::MAX),
            other => {
                return Err(
                    format!("it did not begin with a connection, but with {other:?}").into(),
                );
            }
        }
        self.errand
            .spool
            .counts
            .connected
            .store(true, Ordering::Relaxed);
        tracing::info!(sink = "mqtt", "the broker is reached");
        self.say("online").await?;
        // Alone, so that a break at it is not taken for one at an event.
        self.settle().await?;
        let (spool, ending) = (&self.errand.spool, &self.errand.ending);
        loop {
            self.fill().await?;
            if ending.is_cancelled() && self.settled() {
                self.say("offline").await?;
                self.settle().await?;
                return self.leave().await;
            }
            if self.settled() {
                self.moved = Instant::now();
            }
            let window = self.window();
            tokio::select! {
                signal = self.signals.recv() => self.hear(signal.ok_or("the connection has ended")??).await,
                () = spool.news(), if self.unsure.len() < window => {}
                () = ending.cancelled(), if !ending.is_cancelled() => {}
                () = tokio::time::sleep_until((self.moved + ACKNOWLEDGE).into()), if !self.settled() => {
                    return Err(format!("no acknowledgement within {} s", ACKNOWLEDGE.as_secs()).into());
                }
            }
        }
    }

    /// At most so many events under way.
    fn window(&self) -> usize {
        let first = self
            .unsure
            .keys()
            .next()
            .map_or(self.last + 1, |place| *place);
        if first <= self.experience.one_by_one {
            1
        } else {
            WINDOW
        }
    }

    /// Hands events to the client, as many as may be under way; those that it would refuse are set
    /// aside.
    async fn fill(&mut self) -> Result<(), Failure> {
        while self.unsure.len() < self.window() {
            let events = self
                .errand
                .after(self.last, self.window() - self.unsure.len(), READ)
                .await;
            if events.is_empty() {
                break;
            }
            for event in events {
                self.last = event.place;
                let (topic, retained) = topic(&self.broker.config.topic, &event);
                let size = packet_size(&topic, &event.body);
                if size > self.longest {
                    self.errand
                        .refuse(
                            event.place,
                            &format!(
                                "it makes a packet of {size} bytes; the broker takes {} at most",
                                self.longest
                            ),
                        )
                        .await;
                } else if self.experience.denies(&topic) {
                    self.errand
                        .refuse(
                            event.place,
                            &format!("the broker breaks off the connection at events of {topic}"),
                        )
                        .await;
                } else {
                    self.client
                        .publish(topic.clone(), retained, event.body)
                        .await?;
                    self.handed.push_back(Some(event.place));
                    self.unsure.insert(event.place, topic);
                }
            }
        }
        Ok(())
    }

    fn settled(&self) -> bool {
        self.handed.is_empty() && self.under_way.is_empty()
    }

    /// What was not acknowledged.
    fn left(&self) -> Left {
        let status = self
            .handed
            .iter()
            .chain(self.under_way.values())
            .any(Option::is_none);
        let topic = self.unsure.values().last().cloned().unwrap_or_default();
        Left {
            events: self.unsure.keys().copied().collect(),
            topic,
            status,
        }
    }

    async fn say(&mut self, status: &str) -> Result<(), Failure> {
        if self.experience.no_status {
            return Ok(());
        }
        self.handed.push_back(None);
        self.client
            .publish(self.broker.status_topic(), true, status.into())
            .await
    }

    /// Waits until nothing is under way.
    async fn settle(&mut self) -> Result<(), Failure> {
        while !self.settled() {
            let signal = tokio::time::timeout(ANSWER, self.signals.recv())
                .await
                .map_err(|_| "no answer")?;
            self.hear(signal.ok_or("the connection has ended")??).await;
        }
        Ok(())
    }

    /// Notes what the broker's side tells, and what else it has told meanwhile.
    async fn hear(&mut self, first: Signal) {
        let (mut delivered, mut refused) = (BTreeSet::new(), Vec::new());
        let mut next = Some(first);
        while let Some(signal) = next {
            match signal {
                Signal::Sent(id) => {
                    if let Some(place) = self.handed.pop_front() {
                        self.under_way.insert(id, place);
                    }
                }
                Signal::Acknowledged(id) => delivered.extend(self.under_way.remove(&id).flatten()),
                Signal::Refused(id, reason) => match self.under_way.remove(&id) {
                    Some(Some(place)) => refused.push((place, reason)),
                    Some(None) => {
                        self.experience.no_status = true;
                        tracing::error!(
                            sink = "mqtt",
                            topic = self.broker.status_topic(),
                            reason,
                            "the program's own status is not told any more"
                        );
                    }
                    None => {}
                },
                Signal::Connected(_) => {}
            }
            // An error stays for the next who asks: the channel's end.
            next = self.signals.try_recv().ok().and_then(Result::ok);
        }
        for (place, reason) in &refused {
            self.errand.refuse(*place, reason).await;
            self.unsure.remove(place);
        }
        if !delivered.is_empty() {
            self.errand
                .acknowledge(&delivered.iter().copied().collect::<Vec<_>>())
                .await;
            let topics: Vec<String> = delivered
                .iter()
                .filter_map(|place| self.unsure.remove(place))
                .collect();
            topics.iter().for_each(|topic| {
                self.experience.denied.remove(topic);
            });
        }
        if !(delivered.is_empty() && refused.is_empty()) {
            self.moved = Instant::now();
            self.experience.suspect = None;
        }
    }

    /// Sends DISCONNECT, so that the broker does not publish the last will, and waits for it to be sent, 1 s at most.
    async fn leave(&mut self) -> Result<(), Failure> {
        self.client.disconnect().await?;
        // The client ends with the connection.
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            while self.signals.recv().await.is_some_and(|s| s.is_ok()) {}
        })
        .await;
        Ok(())
    }
}

/// Where an event goes, and whether the broker keeps it for those who come later.
fn topic(root: &str, event: &Kept) -> (String, bool) {
    let (last, retained) = match event.kind {
        EventKind::Trajectory => ("tracks", false),
        EventKind::TrackEnded => ("events", false),
        EventKind::CameraStatus => ("status", true),
    };
    (format!("{root}/{}/{last}", event.camera), retained)
}

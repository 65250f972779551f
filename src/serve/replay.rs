//! The live events of the last minutes, so that a client that reconnects misses nothing.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::serve::live_event::LiveEvent;

/// Which events are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplayLimits {
    /// Maximum age of an event; zero: none are kept.
    pub age: Duration,
    /// Maximum size in bytes of all events together.
    pub bytes: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        ReplayLimits {
            age: Duration::from_secs(120),
            bytes: 32 << 20,
        }
    }
}

/// Place in the stream of live events of one program run: after the event at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken {
    /// The stream, which begins with the program.
    stream: Uuid,
    /// Position of the last event that the client has received; 0 before the first.
    position: u64,
}

impl ResumeToken {
    /// The token of another place in the same stream.
    pub fn at(self, position: u64) -> Self {
        ResumeToken { position, ..self }
    }

    /// Position in the stream.
    pub fn position(self) -> u64 {
        self.position
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream.simple(), self.position)
    }
}

impl FromStr for ResumeToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (stream, position) = text.split_once('.')?;
            Some(ResumeToken {
                stream: stream.parse().ok()?,
                position: position.parse().ok()?,
            })
        };
        parse().ok_or("it is not a token that an earlier connection received")
    }
}

/// What a client receives first when it resumes.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    /// Events since its last one, oldest first.
    pub events: Vec<LiveEvent>,
    /// Whether events before these are missing: they are no longer kept, or the token is of an
    /// earlier program run.
    pub missed: bool,
}

/// The kept events.
pub struct Replay {
    limits: ReplayLimits,
    stream: Uuid,
    /// Position of the last event, from 1.
    last: u64,
    kept: VecDeque<(Instant, LiveEvent)>,
    bytes: usize,
}

impl Replay {
    /// A stream without events.
    pub fn new(limits: ReplayLimits) -> Self {
        Replay {
            limits,
            stream: Uuid::now_v7(),
            last: 0,
            kept: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether events are kept.
    pub fn is_enabled(&self) -> bool {
        !self.limits.age.is_zero() && self.limits.bytes > 0
    }

    /// Gives an event its position, and keeps it.
    pub fn push(&mut self, event: &mut LiveEvent, now: Instant) {
        self.last += 1;
        event.position = self.last;
        if self.is_enabled() {
            self.bytes += event.text.len();
            self.kept.push_back((now, event.clone()));
        }
        while let Some((at, oldest)) = self.kept.front()
            && (self.bytes > self.limits.bytes || now.duration_since(*at) > self.limits.age)
        {
            self.bytes -= oldest.text.len();
            self.kept.pop_front();
        }
    }

    /// The token of the event at `position`.
    pub fn token(&self, position: u64) -> ResumeToken {
        ResumeToken {
            stream: self.stream,
            position,
        }
    }

    /// Position of the last event.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The events after `token`; all kept events if the token is of an earlier program run.
    pub fn since(&self, token: ResumeToken) -> Resumed {
        let own = token.stream == self.stream && token.position <= self.last;
        let after = if own { token.position } else { 0 };
        let events = self.kept.iter().map(|(_, event)| event);
        let events: Vec<LiveEvent> = events.filter(|e| e.position > after).cloned().collect();
        let oldest = events.first().map_or(self.last + 1, |e| e.position);
        Resumed {
            events,
            missed: !own || oldest > after + 1,
        }
    }
}

/// Message to a client: the token with which it can resume.
pub fn resume_message(token: ResumeToken) -> Utf8Bytes {
    #[derive(Serialize)]
    struct Message {
        schema: &'static str,
        token: String,
    }
    message(&Message {
        schema: "twintrack.resume/1",
        token: token.to_string(),
    })
}

/// Message to a client: events are missing before the next one. `events` is their number, if it is
/// known.
pub fn missed_message(events: Option<u64>) -> Utf8Bytes {
    #[derive(Serialize)]
    struct Message {
        schema: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        events: Option<u64>,
    }
    message(&Message {
        schema: "twintrack.missed/1",
        events,
    })
}

fn message(of: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(of).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::EventKind;

    fn event(text: &str) -> LiveEvent {
        LiveEvent {
            camera: "gate".into(),
            kind: EventKind::Trajectory,
            text: text.to_string().into(),
            position: 0,
        }
    }

    fn texts(resumed: &Resumed) -> Vec<&str> {
        resumed.events.iter().map(|e| e.text.as_str()).collect()
    }

    #[test]
    fn events_since_a_token_are_kept_up_to_age_and_size() {
        let limits = ReplayLimits {
            age: Duration::from_secs(10),
            bytes: 8,
        };
        let (mut replay, begin) = (Replay::new(limits), Instant::now());
        let start = replay.token(replay.last());
        for (n, text) in ["aa", "bb", "cc"].into_iter().enumerate() {
            replay.push(&mut event(text), begin + Duration::from_secs(n as u64));
        }
        let all = replay.since(start);
        assert_eq!((texts(&all), all.missed), (vec!["aa", "bb", "cc"], false));
        let later = replay.since(replay.token(2));
        assert_eq!((texts(&later), later.missed), (vec!["cc"], false));
        let nothing = replay.since(replay.token(3));
        assert_eq!((texts(&nothing), nothing.missed), (vec![], false));
        // Too many bytes: "aa" goes.
        replay.push(&mut event("ddd"), begin + Duration::from_secs(3));
        let all = replay.since(start);
        assert_eq!((texts(&all), all.missed), (vec!["bb", "cc", "ddd"], true));
        assert!(!replay.since(replay.token(1)).missed);
        // Too old: "bb" and "cc" go.
        replay.push(&mut event("e"), begin + Duration::from_secs(13));
        let all = replay.since(replay.token(2));
        assert_eq!((texts(&all), all.missed), (vec!["ddd", "e"], true));
    }

    #[test]
    fn tokens_of_other_runs_and_texts_that_are_none_are_recognised() {
        let mut replay = Replay::new(ReplayLimits::default());
        replay.push(&mut event("a"), Instant::now());
        let token = replay.token(1);
        assert_eq!(token.to_string().parse(), Ok(token));
        for text in ["", ".", "1.2", "x.1", "-1", &format!("{}.", Uuid::nil())] {
            assert!(text.parse::<ResumeToken>().is_err(), "{text}");
        }
        let other = Replay::new(ReplayLimits::default()).token(0);
        let resumed = replay.since(other);
        assert_eq!((texts(&resumed), resumed.missed), (vec!["a"], true));
        assert!(replay.since(replay.token(7)).missed, "from the future");
        let disabled = Replay::new(ReplayLimits {
            age: Duration::ZERO,
            bytes: 8,
        });
        assert!(!disabled.is_enabled());
        assert_eq!(
            resume_message(token).as_str(),
            format!(r#"{{"schema":"twintrack.resume/1","token":"{token}"}}"#)
        );
        assert_eq!(
            missed_message(None).as_str(),
            r#"{"schema":"twintrack.missed/1"}"#
        );
    }
}

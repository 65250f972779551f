//! Sinks: JSON lines, MOTChallenge text, ONVIF metadata, an annotated video, and remote receivers
//! (MQTT, NATS, webhook) with a spool on disk.

#[cfg(feature = "serve")]
mod backoff;
#[cfg(feature = "serve")]
mod client_tls;
pub mod counts;
#[cfg(feature = "serve")]
pub mod dead_letter;
#[cfg(feature = "serve")]
pub mod delivery;
#[cfg(feature = "serve")]
pub mod home_assistant;
pub mod jsonl;
pub mod mot;
#[cfg(feature = "serve")]
pub mod mqtt;
#[cfg(feature = "serve")]
mod mqtt_client;
#[cfg(feature = "serve")]
mod mqtt_config;
#[cfg(feature = "serve")]
mod mqtt_history;
#[cfg(feature = "serve")]
mod mqtt_session;
#[cfg(feature = "serve")]
pub mod nats;
#[cfg(feature = "serve")]
mod nats_client;
#[cfg(feature = "serve")]
mod nats_config;
#[cfg(feature = "serve")]
mod nats_session;
pub mod onvif;
#[cfg(feature = "history")]
pub(crate) mod outage_log;
#[cfg(feature = "video")]
pub mod overlay;
pub mod privacy;
pub mod private;
pub mod recorder;
#[cfg(feature = "serve")]
pub mod rotating;
#[expect(
    clippy::module_inception,
    reason = "the module is named after the trait that all sinks implement"
)]
pub mod sink;
#[cfg(feature = "serve")]
pub mod spool;
#[cfg(feature = "serve")]
pub mod stdout;
#[cfg(feature = "serve")]
pub mod webhook;
pub mod without_embeddings;

pub use sink::{FrameResult, OutputConfig, Sink, SinkError};

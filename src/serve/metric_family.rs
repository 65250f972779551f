//! Encoding of a family of metrics: one name, and a value for each set of labels.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Names and values of labels.
pub(super) type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Encodes a family of counters (`counter`) or gauges.
pub(super) fn family<'a>(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counter: bool,
    values: impl Iterator<Item = (Labels<'a>, u64)>,
) -> Result<(), Error> {
    let kind = if counter {
        MetricType::Counter
    } else {
        MetricType::Gauge
    };
    let mut metric = e.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let one = metric.encode_family(&labels)?;
        if counter {
            ConstCounter::new(value).encode(one)?
        } else {
            ConstGauge::new(value as i64).encode(one)?
        }
    }
    Ok(())
}

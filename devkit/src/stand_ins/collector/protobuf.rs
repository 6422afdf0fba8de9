//! Reads the protobuf messages of OTLP into JSON, with the names of OTLP/JSON. A message with a field that is not in
//! the tables below is refused, and so is one with a field of another type, a text that is not UTF-8, or a second
//! value of a single field.
//!
//! The tables follow <https://github.com/open-telemetry/opentelemetry-proto>, without what the app does not send: events
//! and links of spans, exemplars, gauges, summaries and exponential histograms.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};

/// A field's number, its name, and its type.
pub(super) type Field = (u64, &'static str, Type);

/// The fields of a message.
pub(super) type Message = [Field];

#[derive(Clone, Copy)]
pub(super) enum Type {
    One(&'static Message),
    Many(&'static Message),
    Text,
    /// Written in hexadecimal digits.
    Bytes,
    Number,
    Bool,
    Fixed32,
    Fixed64,
    Double,
    PackedFixed64,
    PackedDoubles,
}

use Type::{Bool, Bytes, Double, Fixed32, Fixed64, Many, Number, One, PackedDoubles, PackedFixed64, Text};

/// `ExportTraceServiceRequest`.
pub(super) const TRACES: &Message = &[(1, "resourceSpans", Many(RESOURCE_SPANS))];
const RESOURCE_SPANS: &Message =
    &[(1, "resource", One(RESOURCE)), (2, "scopeSpans", Many(SCOPE_SPANS)), (3, "schemaUrl", Text)];
const SCOPE_SPANS: &Message = &[(1, "scope", One(SCOPE)), (2, "spans", Many(SPAN)), (3, "schemaUrl", Text)];
const SPAN: &Message = &[
    (1, "traceId", Bytes),
    (2, "spanId", Bytes),
    (3, "traceState", Text),
    (4, "parentSpanId", Bytes),
    (5, "name", Text),
    (6, "kind", Number),
    (7, "startTimeUnixNano", Fixed64),
    (8, "endTimeUnixNano", Fixed64),
    (9, "attributes", Many(KEY_VALUE)),
    (10, "droppedAttributesCount", Number),
    (15, "status", One(STATUS)),
    (16, "flags", Fixed32),
];
const STATUS: &Message = &[(2, "message", Text), (3, "code", Number)];

/// `ExportMetricsServiceRequest`.
pub(super) const METRICS: &Message = &[(1, "resourceMetrics", Many(RESOURCE_METRICS))];
const RESOURCE_METRICS: &Message =
    &[(1, "resource", One(RESOURCE)), (2, "scopeMetrics", Many(SCOPE_METRICS)), (3, "schemaUrl", Text)];
const SCOPE_METRICS: &Message = &[(1, "scope", One(SCOPE)), (2, "metrics", Many(METRIC)), (3, "schemaUrl", Text)];
const METRIC: &Message = &[
    (1, "name", Text),
    (2, "description", Text),
    (3, "unit", Text),
    (7, "sum", One(SUM)),
    (9, "histogram", One(HISTOGRAM)),
];
const SUM: &Message =
    &[(1, "dataPoints", Many(NUMBER_POINT)), (2, "aggregationTemporality", Number), (3, "isMonotonic", Bool)];
const NUMBER_POINT: &Message = &[
    (2, "startTimeUnixNano", Fixed64),
    (3, "timeUnixNano", Fixed64),
    (4, "asDouble", Double),
    (6, "asInt", Fixed64),
    (7, "attributes", Many(KEY_VALUE)),
    (8, "flags", Number),
];
const HISTOGRAM: &Message = &[(1, "dataPoints", Many(HISTOGRAM_POINT)), (2, "aggregationTemporality", Number)];
const HISTOGRAM_POINT: &Message = &[
    (2, "startTimeUnixNano", Fixed64),
    (3, "timeUnixNano", Fixed64),
    (4, "count", Fixed64),
    (5, "sum", Double),
    (6, "bucketCounts", PackedFixed64),
    (7, "explicitBounds", PackedDoubles),
    (9, "attributes", Many(KEY_VALUE)),
    (10, "flags", Number),
    (11, "min", Double),
    (12, "max", Double),
];

const RESOURCE: &Message = &[(1, "attributes", Many(KEY_VALUE)), (2, "droppedAttributesCount", Number)];
const SCOPE: &Message = &[(1, "name", Text), (2, "version", Text), (3, "attributes", Many(KEY_VALUE))];
const KEY_VALUE: &Message = &[(1, "key", Text), (2, "value", One(ANY_VALUE))];
const ANY_VALUE: &Message =
    &[(1, "stringValue", Text), (2, "boolValue", Bool), (3, "intValue", Number), (4, "doubleValue", Double)];

/// Reads a message.
///
/// # Errors
/// The bytes are not a message with these fields.
pub(super) fn read(mut bytes: &[u8], message: &Message) -> anyhow::Result<Value> {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let (number, wire) = (tag >> 3, tag & 7);
        let (_, name, kind) = message
            .iter()
            .find(|(known, ..)| *known == number)
            .with_context(|| format!("a message has the unknown field {number}"))?;
        let value = value(&mut bytes, *kind, wire).with_context(|| format!("the field {name}"))?;
        if matches!(kind, Many(_)) {
            let values = object.entry(*name).or_insert_with(|| json!([]));
            values.as_array_mut().context("a field is no list")?.push(value);
        } else {
            ensure!(object.insert((*name).to_owned(), value).is_none(), "the field {name} has a second value");
        }
    }
    Ok(Value::Object(object))
}

/// Reads the value of a field with this wire type
/// (<https://protobuf.dev/programming-guides/encoding/#structure>).
fn value(bytes: &mut &[u8], kind: Type, wire: u64) -> anyhow::Result<Value> {
    let expected = match kind {
        Number | Bool => 0,
        Fixed64 | Double => 1,
        Fixed32 => 5,
        One(_) | Many(_) | Text | Bytes | PackedFixed64 | PackedDoubles => 2,
    };
    ensure!(wire == expected, "has the wire type {wire}, not {expected}");
    Ok(match kind {
        Number => json!(varint(bytes)?),
        Bool => match varint(bytes)? {
            0 => json!(false),
            1 => json!(true),
            other => bail!("is {other}, and neither false nor true"),
        },
        Fixed64 => json!(u64::from_le_bytes(fixed(bytes)?)),
        Double => json!(f64::from_le_bytes(fixed(bytes)?)),
        Fixed32 => json!(u32::from_le_bytes(fixed(bytes)?)),
        One(message) | Many(message) => read(delimited(bytes)?, message)?,
        Text => json!(str::from_utf8(delimited(bytes)?)?),
        Bytes => json!(delimited(bytes)?.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        PackedFixed64 => packed(delimited(bytes)?, |eight| json!(u64::from_le_bytes(eight)))?,
        PackedDoubles => packed(delimited(bytes)?, |eight| json!(f64::from_le_bytes(eight)))?,
    })
}

fn packed(mut bytes: &[u8], number: impl Fn([u8; 8]) -> Value) -> anyhow::Result<Value> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(number(fixed(&mut bytes)?));
    }
    Ok(Value::Array(numbers))
}

fn varint(bytes: &mut &[u8]) -> anyhow::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().context("a number is cut")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    bail!("a number has more than 64 bits")
}

fn fixed<const LENGTH: usize>(bytes: &mut &[u8]) -> anyhow::Result<[u8; LENGTH]> {
    let (number, rest) = bytes.split_first_chunk().context("a number is cut")?;
    *bytes = rest;
    Ok(*number)
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> anyhow::Result<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?)?;
    let (content, rest) = bytes.split_at_checked(length).context("a field is cut")?;
    *bytes = rest;
    Ok(content)
}

//! Makes the JSON views of `openapi.yaml`. `build.rs` includes this file, so that the binary has the views ready to be
//! sent and no YAML parser.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// The version that the 3.1 view names.
const VERSION_3_1: &str = "3.1.1";

/// A value of the document, with the keys in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Null, a boolean or a number, as JSON writes it.
    Literal(String),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Parses YAML (<https://yaml.org/spec/1.2.2/>, core schema, without tags).
    ///
    /// # Errors
    /// The text is not YAML, has a tag, or a mapping has a key twice. The sentence names the line.
    pub(crate) fn parse(yaml: &str) -> Result<Self, String> {
        let mut reader = Reader { anchors: HashMap::new(), open: Vec::new(), document: None };
        for event in Parser::new_from_str(yaml) {
            let (event, span) = event.map_err(|error| error.to_string())?;
            reader.take(event).map_err(|problem| format!("line {}: {problem}", span.start.line()))?;
        }
        reader.document.ok_or_else(|| "the document is empty".to_owned())
    }

    /// The document for readers of OpenAPI 3.1: the schema of an event stream is that of one event, as readers of 3.1
    /// take it (<https://spec.openapis.org/oas/v3.2.0.html#media-type-object> has both).
    pub(crate) fn into_3_1(self) -> Self {
        let Self::Map(entries) = self.with_schema_of_items() else { return Self::Map(Vec::new()) };
        let version = |(key, value)| match key == "openapi" {
            true => (key, Self::Text(VERSION_3_1.to_owned())),
            false => (key, value),
        };
        Self::Map(entries.into_iter().map(version).collect())
    }

    fn with_schema_of_items(self) -> Self {
        match self {
            Self::List(items) => Self::List(items.into_iter().map(Self::with_schema_of_items).collect()),
            Self::Map(entries) => {
                let has_items = entries.iter().any(|(key, _)| key == "itemSchema");
                let kept = entries.into_iter().filter(|(key, _)| !has_items || key != "schema");
                let renamed = kept.map(|(key, value)| {
                    let key = if key == "itemSchema" { "schema".to_owned() } else { key };
                    (key, value.with_schema_of_items())
                });
                Self::Map(renamed.collect())
            }
            other => other,
        }
    }

    /// The value as JSON.
    pub(crate) fn json(&self) -> String {
        let mut json = String::new();
        self.write(&mut json);
        json
    }

    fn write(&self, json: &mut String) {
        match self {
            Self::Literal(literal) => json.push_str(literal),
            Self::Text(text) => json.push_str(&quoted(text)),
            Self::List(items) => {
                json.push('[');
                for (at, item) in items.iter().enumerate() {
                    json.push_str(if at == 0 { "" } else { "," });
                    item.write(json);
                }
                json.push(']');
            }
            Self::Map(entries) => {
                json.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    json.push_str(if at == 0 { "" } else { "," });
                    json.push_str(&quoted(key));
                    json.push(':');
                    value.write(json);
                }
                json.push('}');
            }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Puts values together from the parser's events.
struct Reader {
    /// The values that an alias can name.
    anchors: HashMap<usize, Value>,
    /// The lists and mappings that have not ended, the innermost one last.
    open: Vec<Open>,
    document: Option<Value>,
}

struct Open {
    anchor: usize,
    value: Value,
    /// In a mapping, the key whose value comes next.
    key: Option<String>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(.., Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                Err("tags are not supported".to_owned())
            }
            Event::Scalar(text, style, anchor, None) => {
                let value = if style == ScalarStyle::Plain { plain(&text) } else { Value::Text(text.into_owned()) };
                self.add(anchor, value)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().ok_or("the alias has no anchor")?;
                self.add(0, value)
            }
            Event::SequenceStart(anchor, None) => {
                self.open.push(Open { anchor, value: Value::List(Vec::new()), key: None });
                Ok(())
            }
            Event::MappingStart(anchor, None) => {
                self.open.push(Open { anchor, value: Value::Map(Vec::new()), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, value, .. }) => self.add(anchor, value),
                None => Err("nothing is open here".to_owned()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    /// Adds a whole value to the list or the mapping that it belongs to. The parser counts anchors from 1.
    fn add(&mut self, anchor: usize, value: Value) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let Some(Open { value: parent, key, .. }) = self.open.last_mut() else {
            self.document = Some(value);
            return Ok(());
        };
        match (parent, key.take(), value) {
            (Value::List(items), _, value) => items.push(value),
            (Value::Map(entries), None, Value::Text(name) | Value::Literal(name)) => {
                if entries.iter().any(|(known, _)| *known == name) {
                    return Err(format!("the key {name} is here twice"));
                }
                *key = Some(name);
            }
            (Value::Map(entries), Some(name), value) => entries.push((name, value)),
            _ => return Err("a key must be a scalar".to_owned()),
        }
        Ok(())
    }
}

/// A scalar without quotation marks (<https://yaml.org/spec/1.2.2/#103-core-schema>). Numbers have JSON's form only.
fn plain(text: &str) -> Value {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let is_number = digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'));
    match text {
        "" | "~" | "null" => Value::Literal("null".to_owned()),
        "true" | "false" => Value::Literal(text.to_owned()),
        _ if is_number => Value::Literal(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> String {
        Value::parse(yaml).map_or_else(|error| error, |value| value.json())
    }

    #[test]
    fn yaml_becomes_json_in_the_order_of_the_file() {
        let yaml = "z: 1\na: [-2.50, 1.0.0, \"1\", null, ~, true, off, 08, 1e5]\n\"200\": { x: 'it''s' }\nt: |\n  a \"b\"\n  \\\ne:\n";
        let wanted = r#"{"z":1,"a":[-2.50,"1.0.0","1",null,null,true,"off","08","1e5"],"200":{"x":"it's"},"t":"a \"b\"\n\\\n","e":null}"#;
        assert_eq!(json(yaml), wanted);
    }

    #[test]
    fn an_alias_has_the_value_of_its_anchor() {
        assert_eq!(json("a: &x { b: [1] }\nc: *x\nd: [*x]"), r#"{"a":{"b":[1]},"c":{"b":[1]},"d":[{"b":[1]}]}"#);
    }

    #[test]
    fn what_is_no_plain_document_is_an_error_that_names_the_line() {
        for (yaml, wanted) in [
            ("a: 1\nb: 2\na: 3", "line 3: the key a is here twice"),
            ("a: !!str 1", "line 1: tags are not supported"),
            ("[a]: 1", "line 1: a key must be a scalar"),
            ("", "the document is empty"),
        ] {
            assert_eq!(json(yaml), wanted, "{yaml}");
        }
        assert!(json("a: [").contains("line"), "{}", json("a: ["));
    }

    #[test]
    fn the_view_for_3_1_has_the_schema_of_one_event() {
        let yaml = "openapi: 3.2.0\npaths:\n  x: [{ schema: { all: 1 }, itemSchema: { one: 1 } }, { schema: 2 }]";
        let view = Value::parse(yaml).expect("YAML").into_3_1();
        assert_eq!(view.json(), r#"{"openapi":"3.1.1","paths":{"x":[{"schema":{"one":1}},{"schema":2}]}}"#);
    }
}

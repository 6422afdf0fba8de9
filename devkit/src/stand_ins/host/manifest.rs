//! Reads `host.json` and the `function.json` files as the host does.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Wire;
use super::trigger::{Limits, Trigger};

/// The first words of paths that the host answers itself.
const RESERVED: [&str; 2] = ["admin", "runtime"];

/// The parts of an app's `host.json` and `function.json` files that the stand-in uses.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) executable: String,
    /// In the order in which they are matched.
    pub(super) functions: Vec<Function>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) queues: Limits,
}

/// A function with an HTTP trigger.
#[derive(Debug)]
pub(super) struct Function {
    name: String,
    /// The prefix of `host.json` and the function's own route.
    route: Vec<Segment>,
    methods: Vec<String>,
    pub(super) needs_key: bool,
}

#[derive(Debug)]
enum Segment {
    Literal(String),
    /// A parameter, with the length that its constraint asks for.
    Parameter {
        name: String,
        length: Option<usize>,
    },
    OptionalParameter,
    Rest,
}

#[derive(Deserialize)]
struct Bindings {
    bindings: Vec<Binding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    r#type: String,
    direction: String,
    auth_level: Option<String>,
    methods: Option<Vec<String>>,
    route: Option<String>,
    name: Option<String>,
    queue_name: Option<String>,
    connection: Option<String>,
}

impl Manifest {
    /// Reads an app's folder. A setting `AzureFunctionsJobHost__a__b` overrides `a.b` of `host.json`.
    pub(super) fn read(root: &Path, wire: Wire, settings: &[(String, String)]) -> anyhow::Result<Self> {
        let text = fs::read_to_string(root.join("host.json")).context("cannot read host.json")?;
        let mut host: Value = serde_json::from_str(&text).context("host.json is not JSON")?;
        for (name, value) in settings {
            if let Some(path) = name.strip_prefix("AzureFunctionsJobHost__") {
                override_value(&mut host, path, value);
            }
        }
        ensure!(host["version"] == "2.0", "host.json needs \"version\": \"2.0\"");
        let custom = &host["customHandler"];
        let flag = match wire {
            Wire::Proxying => "enableProxyingHttpRequest",
            Wire::Forwarding => "enableForwardingHttpRequest",
        };
        ensure!(
            custom[flag] == true,
            "host.json does not set customHandler.{flag}: the handler would get a JSON envelope instead of HTTP"
        );
        let executable = custom["description"]["defaultExecutablePath"].as_str();
        let prefix = host["extensions"]["http"]["routePrefix"].as_str().unwrap_or("api");
        let (mut functions, mut triggers) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(root)? {
            let folder = entry?.path();
            if folder.join("function.json").is_file() {
                let (name, bindings) = read_bindings(&folder).with_context(|| folder.display().to_string())?;
                functions.extend(Function::of(&name, prefix, &bindings).with_context(|| name.clone())?);
                triggers.extend(trigger_of(&name, bindings).with_context(|| name.clone())?);
            }
        }
        // The host matches functions in the order of their names, and the first one wins.
        functions.sort_by_key(|function| function.name.to_ascii_lowercase());
        let bundle = host["extensionBundle"]["id"] == "Microsoft.Azure.Functions.ExtensionBundle";
        ensure!(bundle || triggers.is_empty(), "a queue trigger needs the extensionBundle in host.json");
        ensure!(!functions.is_empty(), "{} has no function with an HTTP trigger", root.display());
        Ok(Self {
            executable: executable
                .context("host.json has no customHandler.description.defaultExecutablePath")?
                .to_owned(),
            functions,
            triggers,
            queues: Limits::of(&host)?,
        })
    }

    /// The function for a method and the client's path. Case does not matter, and one trailing slash is
    /// allowed. No function gets a path of the host's own.
    pub(super) fn find(&self, method: &str, path: &str) -> Option<&Function> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        if segments.first().is_some_and(|first| RESERVED.iter().any(|word| first.eq_ignore_ascii_case(word))) {
            return None;
        }
        let takes_method =
            |function: &&Function| function.methods.iter().any(|taken| taken.eq_ignore_ascii_case(method));
        self.functions.iter().filter(takes_method).find(|function| function.matches(&segments))
    }
}

impl Function {
    /// The function if it has an HTTP trigger.
    fn of(name: &str, prefix: &str, bindings: &[Binding]) -> anyhow::Result<Option<Self>> {
        let Some(trigger) = bindings.iter().find(|binding| binding.r#type == "httpTrigger") else { return Ok(None) };
        let outputs = bindings.iter().filter(|binding| binding.r#type == "http" && binding.direction == "out").count();
        if bindings.len() != 2 || outputs != 1 || trigger.direction != "in" {
            bail!("a function needs one httpTrigger and one http output; otherwise the handler gets a JSON envelope");
        }
        let methods = match &trigger.methods {
            Some(methods) => methods.clone(),
            None => ["get", "post", "put", "delete", "patch", "head", "options"].map(str::to_owned).to_vec(),
        };
        // An empty route counts as missing.
        let route = trigger.route.as_deref().filter(|route| !route.is_empty()).unwrap_or(name).trim_matches('/');
        let first = route.to_ascii_lowercase();
        ensure!(!RESERVED.iter().any(|word| first.starts_with(word)), "the route conflicts with one of the host's own");
        let parts = prefix.split('/').chain(route.split('/')).filter(|part| !part.is_empty());
        Ok(Some(Self {
            route: parts.map(Segment::parse).collect(),
            methods,
            needs_key: match trigger.auth_level.as_deref() {
                Some("anonymous") => false,
                None | Some("function" | "admin") => true,
                Some(_) => bail!("the authLevel is unknown"),
            },
            name: name.to_owned(),
        }))
    }

    fn matches(&self, mut path: &[&str]) -> bool {
        for segment in &self.route {
            match (segment, path) {
                (Segment::Rest, _) => return true,
                (Segment::OptionalParameter, []) => {}
                (Segment::Literal(literal), [first, rest @ ..]) if literal.eq_ignore_ascii_case(first) => path = rest,
                (Segment::OptionalParameter, [first, rest @ ..]) if !first.is_empty() => path = rest,
                (Segment::Parameter { length, .. }, [first, rest @ ..])
                    if !first.is_empty() && length.is_none_or(|length| first.len() == length) =>
                {
                    path = rest;
                }
                _ => return false,
            }
        }
        path.is_empty()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The path as a reader types it: without constraints, and without what is optional.
    pub(super) fn path(&self) -> String {
        let parts = self.route.iter().filter_map(|segment| match segment {
            Segment::Literal(literal) => Some(literal.clone()),
            Segment::Parameter { name, .. } => Some(format!("{{{name}}}")),
            Segment::OptionalParameter | Segment::Rest => None,
        });
        format!("/{}", parts.collect::<Vec<_>>().join("/"))
    }
}

/// A function's name, which is that of its folder, and the bindings of its `function.json`.
fn read_bindings(folder: &Path) -> anyhow::Result<(String, Vec<Binding>)> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("the folder's name is not UTF-8")?;
    let text = fs::read_to_string(folder.join("function.json"))?;
    let Bindings { bindings } = serde_json::from_str(&text).context("function.json is invalid")?;
    Ok((name.to_owned(), bindings))
}

/// The trigger of a function if it is a queue trigger.
fn trigger_of(function: &str, bindings: Vec<Binding>) -> anyhow::Result<Option<Trigger>> {
    let Some(binding) = bindings.into_iter().find(|binding| binding.r#type == "queueTrigger") else { return Ok(None) };
    ensure!(binding.direction == "in", "a trigger needs the direction \"in\"");
    Ok(Some(Trigger {
        function: function.to_owned(),
        binding: binding.name.context("the trigger has no name")?,
        queue: binding.queue_name.context("the trigger has no queueName")?,
        connection: binding.connection.unwrap_or_else(|| "AzureWebJobsStorage".to_owned()),
    }))
}

impl Segment {
    fn parse(text: &str) -> Self {
        match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(name) if name.starts_with('*') => Self::Rest,
            Some(name) if name.ends_with('?') => Self::OptionalParameter,
            Some(parameter) => {
                let (name, constraint) = parameter.split_once(':').unwrap_or((parameter, ""));
                let length = constraint.strip_prefix("length(").and_then(|rest| rest.strip_suffix(')')?.parse().ok());
                Self::Parameter { name: name.to_owned(), length }
            }
            None => Self::Literal(text.to_owned()),
        }
    }
}

fn override_value(host: &mut Value, path: &str, value: &str) {
    let mut place = host;
    for name in path.split("__") {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[name];
    }
    *place = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
}

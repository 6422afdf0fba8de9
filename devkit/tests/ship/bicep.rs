//! Reads Bicep: the syntax tree of tree-sitter, as JSON values that a test can ask.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};
use tree_sitter::{Node, Parser};

/// One file of `infra/`.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Each parameter, and whether it has a default.
    pub(crate) parameters: BTreeMap<String, bool>,
    pub(crate) variables: BTreeMap<String, Value>,
    pub(crate) resources: Vec<Declaration>,
    pub(crate) modules: Vec<Declaration>,
    pub(crate) outputs: BTreeMap<String, Value>,
}

/// A resource or a module.
pub(crate) struct Declaration {
    pub(crate) name: String,
    /// `Microsoft.Web/sites@2024-11-01` of a resource, the path of a module.
    pub(crate) kind: String,
    pub(crate) is_existing: bool,
    /// The properties. An expression is its text; a loop adds the list it goes over as `for`.
    pub(crate) body: Value,
}

/// All files of `infra/`, by name.
pub(crate) fn files() -> BTreeMap<String, File> {
    let files: BTreeMap<_, _> = crate::files("infra", "bicep")
        .into_iter()
        .map(|path| (Path::new(&path).file_stem().unwrap().to_str().unwrap().to_owned(), File::read(&path)))
        .collect();
    assert!(files.contains_key("main"));
    files
}

impl File {
    pub(crate) fn read(path: &str) -> Self {
        Self::parse(path, crate::read(path))
    }

    fn parse(path: &str, text: String) -> Self {
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_bicep::LANGUAGE.into()).unwrap();
        let tree = parser.parse(&text, None).unwrap();
        let mut errors = vec![];
        find_errors(tree.root_node(), &mut errors);
        assert!(errors.is_empty(), "{path} is no Bicep at line {errors:?}");

        let mut file = Self {
            path: path.to_owned(),
            text: String::new(),
            parameters: BTreeMap::new(),
            variables: BTreeMap::new(),
            resources: vec![],
            modules: vec![],
            outputs: BTreeMap::new(),
        };
        for node in children(tree.root_node()) {
            let parts = children(node);
            let Some(name) = parts.iter().find(|part| part.kind() == "identifier") else { continue };
            let name = source(*name, &text).to_owned();
            let last = *parts.last().unwrap();
            match node.kind() {
                "parameter_declaration" => drop(file.parameters.insert(name, last.kind() != "type")),
                "variable_declaration" => drop(file.variables.insert(name, value(last, &text))),
                "output_declaration" => drop(file.outputs.insert(name, value(last, &text))),
                "resource_declaration" => file.resources.push(declaration(name, node, &text)),
                "module_declaration" => file.modules.push(declaration(name, node, &text)),
                _ => {}
            }
        }
        file.text = text;
        file
    }

    /// The only resource of this type.
    pub(crate) fn resource(&self, kind: &str) -> &Value {
        let mut found =
            self.resources.iter().filter(|one| one.kind.split('@').next() == Some(kind) && !one.is_existing);
        let body = &found.next().unwrap_or_else(|| panic!("{} has no {kind}", self.path)).body;
        assert!(found.next().is_none(), "{} has several {kind}", self.path);
        body
    }

    /// The strings that a function such as `loadTextContent` is called with.
    pub(crate) fn arguments_of(&self, function: &str) -> BTreeSet<String> {
        let call = format!("{function}('");
        let calls = self.text.split(&call).skip(1);
        calls.map(|rest| rest.split('\'').next().unwrap().to_owned()).collect()
    }
}

fn declaration(name: String, node: Node<'_>, text: &str) -> Declaration {
    let parts = children(node);
    let kind = parts.iter().find(|part| part.kind() == "string").unwrap();
    let kind = source(*kind, text).trim_matches('\'').to_owned();
    let is_existing = (0..node.child_count()).any(|at| node.child(at).unwrap().kind() == "existing");
    Declaration { name, kind, is_existing, body: value(*parts.last().unwrap(), text) }
}

/// The named children without comments.
fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).filter(|child| child.kind() != "comment").collect()
}

fn source<'a>(node: Node<'_>, text: &'a str) -> &'a str {
    &text[node.byte_range()]
}

fn find_errors(node: Node<'_>, errors: &mut Vec<usize>) {
    if node.is_error() || node.is_missing() {
        errors.push(node.start_position().row + 1);
    }
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        find_errors(child, errors);
    }
}

fn value(node: Node<'_>, text: &str) -> Value {
    let parts = children(node);
    match node.kind() {
        "object" => {
            parts.into_iter().filter(|part| part.kind() == "object_property").map(|p| property(p, text)).collect()
        }
        "array" => parts.into_iter().map(|part| value(part, text)).collect(),
        "boolean" => Value::Bool(source(node, text) == "true"),
        "number" => source(node, text).parse().unwrap(),
        "string" => source(node, text).trim_matches('\'').into(),
        "if_statement" => value(*parts.last().unwrap(), text),
        "for_statement" => {
            let mut body = value(node.child_by_field_name("body").unwrap(), text);
            body["for"] = source(parts[parts.len() - 2], text).into();
            body
        }
        // The literal objects of a union are one object; its other parts are checked where they are written.
        "call_expression" if source(node, text).starts_with("union(") => {
            let arguments = children(node.child_by_field_name("arguments").unwrap());
            let objects = arguments.into_iter().filter(|argument| argument.kind() == "object");
            let merged = objects.flat_map(|one| value(one, text).as_object().cloned().unwrap()).collect::<Map<_, _>>();
            Value::Object(merged)
        }
        _ => source(node, text).into(),
    }
}

fn property(node: Node<'_>, text: &str) -> (String, Value) {
    let parts = children(node);
    (source(parts[0], text).trim_matches('\'').to_owned(), value(*parts.last().unwrap(), text))
}

#[test]
fn a_file_with_an_error_is_refused_with_its_line() {
    let broken = "param location string\nresource a 'Microsoft.A/b@2025-01-01' = {\n  name 'x'\n}\n";
    let error = std::panic::catch_unwind(|| File::parse("broken.bicep", broken.to_owned())).err().unwrap();
    let error = error.downcast_ref::<String>().unwrap();
    assert!(error.starts_with("broken.bicep is no Bicep at line"), "{error}");
}

//! `paraflow nodes`: the node reference, read off the declarations.

use clap::Args;
use paraflow_engine::spec::{InputSpec, NodeSpec, Specs as _, Widget};
use paraflow_engine::{Registry, nearest};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

use super::{Exit, Places, base, report};

/// Arguments of `paraflow nodes`.
#[derive(Args)]
pub(crate) struct NodesArgs {
    /// Explain this node; without it, all are listed
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists the nodes, or explains one.
pub(crate) fn nodes(args: &NodesArgs, places: &Places) -> Exit {
    let Some(base) = base::open(places, None, None) else { return Exit::Failed };
    match &args.name {
        Some(name) => explain(&base.registry, name, args.json),
        None => {
            list(&base.registry, args.json);
            Exit::Done
        }
    }
}

fn list(registry: &Registry, as_json: bool) {
    if as_json {
        let all: Vec<Json> = registry.specs().map(to_json).collect();
        report::data(Json::from(all));
        return;
    }
    let mut by_category: BTreeMap<&str, Vec<&NodeSpec>> = BTreeMap::new();
    for spec in registry.specs() {
        by_category.entry(spec.category).or_default().push(spec);
    }
    let width = registry.specs().map(|spec| spec.name.len()).max().unwrap_or(0);
    for (index, (category, specs)) in by_category.iter().enumerate() {
        report::data(if index == 0 { (*category).to_owned() } else { format!("\n{category}") });
        for spec in specs {
            report::data(format_args!("  {:width$}  {}", spec.name, first_sentence(spec.doc)));
        }
    }
}

fn explain(registry: &Registry, name: &str, as_json: bool) -> Exit {
    let Some(spec) = registry.spec(name) else {
        let hint = nearest(name, registry.names()).map(|near| format!("did you mean `{near}`?"));
        report::error(
            format_args!("there is no node `{name}`"),
            Some(hint.as_deref().unwrap_or("`paraflow nodes` lists them")),
        );
        return Exit::Failed;
    };
    if as_json {
        report::data(to_json(spec));
        return Exit::Done;
    }
    report::data(match spec.display_name {
        Some(title) => format!("{} ({title}), in {}\n", spec.name, spec.category),
        None => format!("{}, in {}\n", spec.name, spec.category),
    });
    report::data(spec.doc.trim());
    table("Inputs", spec.inputs.iter().map(|input| (input.name, domain(input), input.doc)));
    table("Outputs", spec.outputs.iter().map(|output| (output.name, output.kind.to_owned(), "")));
    Exit::Done
}

/// Names and domains in columns, the text below them: it reads well at any width of the terminal.
fn table<'a>(title: &str, rows: impl Iterator<Item = (&'a str, String, &'a str)>) {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    report::data(format_args!("\n{title}"));
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    for (name, domain, doc) in rows {
        report::data(format_args!("  {name:width$}  {domain}"));
        for line in doc.trim().lines() {
            report::data(format_args!("  {:width$}    {}", "", line.trim()));
        }
    }
}

/// What an input takes, in one line: `INT 1 to 10000, default 20`.
fn domain(input: &InputSpec) -> String {
    let mut text = match &input.widget {
        Widget::Integer { min, max, .. } => format!("{} {min} to {max}", input.kind),
        Widget::Number { min, max, .. } => format!("{} {min} to {max}", input.kind),
        Widget::Choice(entries) if entries.len() <= 12 => format!("one of {}", entries.join(", ")),
        Widget::Choice(entries) => format!("one of {}, … ({} in all)", entries[..12].join(", "), entries.len()),
        Widget::Socket | Widget::Toggle | Widget::Text { .. } => input.kind.to_owned(),
    };
    match &input.default {
        Some(default) => text += &format!(", default {default}"),
        None if !input.required => text += ", optional",
        None => {}
    }
    text
}

fn first_sentence(doc: &str) -> String {
    let paragraph = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
    paragraph[..end].trim().to_owned()
}

fn to_json(spec: &NodeSpec) -> Json {
    let input = |input: &InputSpec| {
        let mut fields = json!({
            "name": input.name, "kind": input.kind, "required": input.required, "doc": input.doc.trim(),
        });
        if let Some(default) = &input.default {
            fields["default"] = default.clone();
        }
        match &input.widget {
            Widget::Integer { min, max, step } => {
                // JSON's numbers end at 64 bits, and so does every whole number that a node takes.
                fields["min"] = whole(*min);
                fields["max"] = whole(*max);
                fields["step"] = whole(step.unwrap_or(1));
            }
            Widget::Number { min, max, step, .. } => {
                fields["min"] = json!(min);
                fields["max"] = json!(max);
                fields["step"] = json!(step);
            }
            Widget::Choice(entries) => fields["choices"] = json!(entries),
            Widget::Socket | Widget::Toggle | Widget::Text { .. } => {}
        }
        fields
    };
    json!({
        "name": spec.name, "display_name": spec.display_name, "category": spec.category, "doc": spec.doc.trim(),
        "sink": spec.sink, "inputs": spec.inputs.iter().map(input).collect::<Vec<_>>(),
        "outputs": spec.outputs.iter().map(|output| json!({"name": output.name, "kind": output.kind})).collect::<Vec<_>>(),
    })
}

fn whole(number: i128) -> Json {
    u64::try_from(number).map(Json::from).or_else(|_| i64::try_from(number).map(Json::from)).unwrap_or(Json::Null)
}

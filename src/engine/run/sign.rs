//! Signatures: what a result depends on, as one hash a task.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cache::Signature;
use crate::error::Error;
use crate::plan::{Plan, Source, Task, Wire};
use crate::value::Value;

/// The signatures of a plan's tasks, by task.
pub(crate) struct Signed {
    pub(crate) signatures: Vec<Signature>,
    /// Whether an equal signature can come again, so that the result is worth keeping.
    pub(crate) lasting: Vec<bool>,
    /// Tasks whose file could not be read: they fail when they come to run.
    pub(crate) faults: HashMap<usize, Arc<Error>>,
}

/// Signs every task: the node and its version, its literals, the content of the files they name, and the signatures of
/// what it reads. Node ids are no part of it, so equal work is equal wherever it stands.
pub(crate) fn sign(plan: &Plan, run: u64) -> Signed {
    let tasks = plan.tasks();
    let mut signed = Signed {
        signatures: Vec::with_capacity(tasks.len()),
        lasting: Vec::with_capacity(tasks.len()),
        faults: HashMap::new(),
    };
    let mut writing = Vec::new();
    for (position, task) in tasks.iter().enumerate() {
        writing.clear();
        let fingerprints = write_task(&mut writing, plan, task, &signed.signatures);
        let mut lasting = !task.node.def.volatile && task.wires().all(|wire| signed.lasting[wire.from]);
        if let Err(error) = fingerprints {
            signed.faults.insert(position, Arc::new(error));
            lasting = false;
        }
        if !lasting {
            // Like nothing before, and like no other task of this run.
            writing.extend(run.to_le_bytes());
            writing.extend((position as u64).to_le_bytes());
        }
        signed.signatures.push(Signature(*blake3::hash(&writing).as_bytes()));
        signed.lasting.push(lasting);
    }
    signed
}

/// Writes all that the task's result depends on, so that no two different tasks write the same.
fn write_task(to: &mut Vec<u8>, plan: &Plan, task: &Task, upstream: &[Signature]) -> Result<(), Error> {
    let spec = &task.node.spec;
    write_bytes(to, spec.name.as_bytes());
    to.extend(spec.version.to_le_bytes());
    for (source, field) in task.inputs.iter().zip(&task.node.fields) {
        match source {
            Source::Absent => to.push(b'-'),
            Source::Wire(wire) => write_wire(to, *wire, upstream),
            Source::Literal(value) => {
                write_literal(to, value);
                if let Some(content) = (field.fingerprint)(value, plan.services())? {
                    to.push(b'@');
                    write_bytes(to, &content);
                }
            }
        }
    }
    for (position, wire) in &task.rest {
        to.push(b'+');
        write_bytes(to, plan.entry(task).inputs[*position].0.as_bytes());
        write_wire(to, *wire, upstream);
    }
    Ok(())
}

fn write_wire(to: &mut Vec<u8>, wire: Wire, upstream: &[Signature]) {
    to.push(b'>');
    to.extend(upstream[wire.from].0);
    to.extend((wire.slot as u64).to_le_bytes());
}

fn write_literal(to: &mut Vec<u8>, value: &Value) {
    if let Some(integer) = value.get::<i128>() {
        to.push(b'i');
        to.extend(integer.to_le_bytes());
    } else if let Some(number) = value.get::<f64>() {
        to.push(b'f');
        to.extend(number.to_bits().to_le_bytes());
    } else if let Some(truth) = value.get::<bool>() {
        to.push(b'b');
        to.push(u8::from(*truth));
    } else if let Some(text) = value.get::<String>() {
        to.push(b's');
        write_bytes(to, text.as_bytes());
    } else {
        to.push(b'j');
        write_json(to, &value.to_json().unwrap_or(Json::Null));
    }
}

/// JSON with the keys of its objects in order. As deep as the file's own nesting, which its reader bounds.
fn write_json(to: &mut Vec<u8>, json: &Json) {
    match json {
        Json::Array(list) => {
            to.push(b'[');
            list.iter().for_each(|element| write_json(to, element));
            to.push(b']');
        }
        Json::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            to.push(b'{');
            for (key, element) in entries {
                write_bytes(to, key.as_bytes());
                write_json(to, element);
            }
            to.push(b'}');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => write_bytes(to, json.to_string().as_bytes()),
    }
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u64).to_le_bytes());
    to.extend(bytes);
}

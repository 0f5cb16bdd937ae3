//! Inputs that grow with the wires, and inputs that are there with some choices only.

use paraflow_engine::*;
use serde_json::json;

use crate::toys::{Room, read};

fn faults(graph: &str) -> Vec<String> {
    Plan::new(read(graph), &Room::new().registry).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn an_input_grows_with_its_wires_and_gives_them_in_the_order_of_their_numbers() {
    let room = Room::new();
    let graph = "
        1 Number value=5
        2 Number value=7
        3 Row numbers.number3=@1 numbers.number0=@2 numbers.number1=@1
        4 Show value=@3";
    room.check(
        graph,
        "planned 4, 0 cached
         ran 1
         ran 2
         ran 3
         shown 4 \"7 5 5\"
         ran 4
         done",
    );
    // One wire more is another result.
    let log = room.log(
        &room.plan(&graph.replace("numbers.number0=@2", "numbers.number0=@2 numbers.number2=@2")),
        &Cancel::new(),
        |_| false,
    );
    assert!(log.contains(&"shown 4 \"7 5 7 5\"".to_owned()), "{log:?}");
}

#[test]
fn a_list_on_a_grown_wire_calls_the_node_for_each_of_it() {
    let room = Room::new();
    let log = room.log(
        &room.plan("1 Count to=3\n2 Number value=9\n3 Row numbers.number0=@1 numbers.number1=@2\n4 Show value=@3"),
        &Cancel::new(),
        |_| false,
    );
    assert!(log.iter().any(|line| line.contains("1 9") && line.contains("3 9")), "{log:?}");
}

#[test]
fn what_does_not_grow_is_told() {
    let none = faults("1 Row\n2 Show value=@1");
    assert!(none[0].contains("numbers.number0"), "{none:?}");
    let kind = faults("1 Number value=1\n2 IsPositive value=@1\n3 Row numbers.number0=@2\n4 Show value=@3");
    assert!(kind[0].contains("expects INT, found BOOLEAN"), "{kind:?}");
    for beyond in ["numbers.number4", "numbers.numberx", "numbers.other0", "number0"] {
        let told = faults(&format!("1 Number value=1\n2 Row numbers.number0=@1 {beyond}=@1\n3 Show value=@2"));
        assert!(told.iter().any(|fault| fault.contains(beyond)), "{beyond}: {told:?}");
    }
}

#[test]
fn an_input_is_there_while_its_choice_is() {
    let room = Room::new();
    for (inputs, shown) in [
        ("value=4", "8"),
        ("value=4 how.factor=3", "12"),
        ("value=4 how=plus how.more=3", "7"),
        // What belongs to the other way is neither checked nor used.
        ("value=4 how=plus how.more=3 how.factor=100", "7"),
    ] {
        let graph = format!("1 Enlarge {inputs}\n2 Show value=@1");
        let log = room.log(&room.plan(&graph), &Cancel::new(), |_| false);
        assert!(log.contains(&format!("shown 2 {shown}")), "{inputs}: {log:?}");
    }
    let missing = faults("1 Enlarge value=4 how=plus\n2 Show value=@1");
    assert!(missing[0].contains("how.more"), "{missing:?}");
    let large = faults("1 Enlarge value=4 how.factor=10\n2 Show value=@1");
    assert!(large[0].contains("how.factor"), "{large:?}");
    let plan = room.plan("1 Enlarge value=4\n2 Show value=@1");
    assert_eq!(
        plan.prompt()["1"]["inputs"],
        json!({"value": 4, "how": "times", "how.factor": 2}),
        "defaults are filled"
    );
}

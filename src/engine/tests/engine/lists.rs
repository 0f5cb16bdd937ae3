//! ComfyUI's rules for lists: a node is called for each element, the last of a shorter list standing in.

use crate::toys::Room;

#[test]
fn a_node_is_called_for_each_element_and_the_last_repeats() {
    Room::new().check(
        "1 Count to=3
         2 Count to=2
         3 Add a=@1 b=@2
         4 Show value=@3",
        "planned 4, 0 cached
         ran 1
         ran 2
         ran 3
         shown 4 2 4 5
         ran 4
         done",
    );
}

#[test]
fn a_node_of_lists_is_called_once_with_all() {
    Room::new().check(
        "1 Count to=4
         2 Add a=@1 b=10
         3 Total values=@2 factor=2
         4 Show value=@3",
        "planned 4, 0 cached
         ran 1
         ran 2
         ran 3
         shown 4 100
         ran 4
         done",
    );
}

#[test]
fn lists_that_several_calls_give_are_joined() {
    Room::new().check(
        "1 Count to=3
         2 Count to=@1
         3 Show value=@2",
        "planned 3, 0 cached
         ran 1
         ran 2
         shown 3 1 1 2 1 2 3
         ran 3
         done",
    );
}

#[test]
fn a_list_without_elements_is_an_error_where_elements_are_taken() {
    let graph = "
        1 Count to=0
        2 Add a=@1 b=1
        3 Show value=@2";
    Room::new().check(
        graph,
        "planned 3, 0 cached
         ran 1
         failed 2 Add: input `a` got a list without elements",
    );
    Room::new().check(
        &graph.replace("Add a=@1 b=1", "Total values=@1"),
        "planned 3, 0 cached
         ran 1
         ran 2
         shown 3 0
         ran 3
         done",
    );
}

#[test]
fn a_blocked_element_blocks_only_itself() {
    Room::new().check(
        "1 Count to=3
         2 Add a=@1 b=-2
         3 Gate value=@2
         4 Add a=@3
         5 Show value=@4",
        "planned 5, 0 cached
         ran 1
         ran 2
         ran 3
         ran 4
         shown 5 2
         ran 5
         done",
    );
}

#[test]
fn a_switch_in_a_list_asks_for_what_any_element_needs() {
    Room::new().check(
        "1 Count to=2
         2 Add a=@1 b=-1
         3 Number value=7
         4 Number value=8
         5 IsPositive value=@2
         6 Switch pick=@5 on_true=@3 on_false=@4
         7 Show value=@6",
        "planned 5, 0 cached
         ran 1
         ran 2
         ran 5
         planned 7, 0 cached
         ran 3
         ran 4
         ran 6
         shown 7 8 7
         ran 7
         done",
    );
}

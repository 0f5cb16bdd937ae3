//! What a declaration becomes.

use paraflow_engine::*;

struct Folder(&'static [&'static str]);

fn names(services: &Services) -> Vec<String> {
    services.get::<Folder>().map_or_else(Vec::new, |folder| folder.0.iter().map(ToString::to_string).collect())
}

fn numbers() -> [u32; 2] {
    [1, 2]
}

/// Does everything
/// that a node can declare.
///
/// Details.
#[derive(Node)]
#[node(
    name = "Everything (paraflow)",
    display_name = "Everything",
    category = "a/b",
    version = 3,
    compute,
    sink,
    deprecated,
    outputs = ["all", "INT"]
)]
#[expect(dead_code, reason = "never run")]
struct Everything {
    /// May be left out.
    #[input(range = -1..=5)]
    optional: Option<i32>,
    /// A wire.
    wire: Shared<String>,
    /// A seed.
    #[input(name = "noise seed", control_after_generate)]
    seed: u64,
    /// A number.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    r#type: f32,
    /// From a function.
    #[input(choices = numbers)]
    from_function: Choice<u32>,
    /// From the services.
    #[input(choices = names, image_upload)]
    from_services: Choice<String>,
    /// From a closure.
    #[input(choices = |services: &Services| names(services).into_iter().rev().collect::<Vec<_>>())]
    from_closure: Choice<String>,
    /// Words.
    #[input(multiline, dynamic_prompts, force_input)]
    text: String,
    /// Lazy.
    #[input(kind = "IMAGE,MASK")]
    lazy: Lazy<Value>,
    /// Steps.
    #[input(range = 0..=64, step = 8, advanced)]
    steps: usize,
}

impl Run for Everything {
    type Output = (Vec<String>, i64);

    fn run(self, _: &Context) -> Result<Self::Output> {
        unreachable!("only declared")
    }
}

#[test]
fn a_spec_says_what_the_struct_says() {
    let registry = Registry::new([NodeDef::of::<Everything>()], Services::new().with(Folder(&["a", "b"])));
    let spec = registry.spec("Everything (paraflow)").unwrap();
    assert_eq!(Everything::NAME, spec.name);
    assert_eq!(spec.doc, "Does everything that a node can declare.\n\nDetails.");
    assert_eq!((spec.display_name, spec.category, spec.version), (Some("Everything"), "a/b", 3));
    assert_eq!((spec.lane, spec.sink, spec.input_is_list, spec.deprecated), (Lane::Compute, true, false, true));
    let outputs: Vec<_> = spec.outputs.iter().map(|output| (output.name, output.kind, output.is_list)).collect();
    assert_eq!(outputs, [("all", "STRING", true), ("INT", "INT", false)]);

    let list = |names: &[&str]| Widget::Choice(names.iter().map(ToString::to_string).collect());
    let inputs: Vec<_> = spec.inputs.iter().map(|input| (input.name, input.kind, input.widget.clone())).collect();
    let expected = [
        ("wire", "STRING", Widget::Socket),
        ("noise seed", "INT", Widget::Integer { min: 0, max: i128::from(u64::MAX), step: None }),
        ("type", "FLOAT", Widget::Number { min: 0.0, max: 100.0, step: 0.1, round: Some(0.01) }),
        ("from_function", "COMBO", list(&["1", "2"])),
        ("from_services", "COMBO", list(&["a", "b"])),
        ("from_closure", "COMBO", list(&["b", "a"])),
        ("text", "STRING", Widget::Text { multiline: true, dynamic_prompts: true }),
        ("lazy", "IMAGE,MASK", Widget::Socket),
        ("steps", "INT", Widget::Integer { min: 0, max: 64, step: Some(8) }),
        ("optional", "INT", Widget::Integer { min: -1, max: 5, step: None }),
    ];
    assert_eq!(inputs, expected);

    let input = |name| spec.input(name).unwrap();
    assert_eq!(input("type").default, Some(8.0.into()));
    assert_eq!(input("text").doc, "Words.");
    assert!(input("lazy").lazy && input("lazy").required && !input("optional").required);
    assert!(input("text").force_input && input("from_services").image_upload);
    assert!(input("noise seed").control_after_generate && !input("steps").control_after_generate);
    assert!(input("steps").advanced && !input("type").advanced);
}

#[test]
fn a_registry_asks_for_its_lists_anew_when_told() {
    use std::sync::{Arc, Mutex};

    struct Growing(Arc<Mutex<Vec<String>>>);

    /// Picks.
    #[derive(Node)]
    #[node(category = "toys")]
    struct Pick {
        /// One of what there is.
        #[input(choices = |services: &Services| services.expect::<Growing>().0.lock().unwrap().clone())]
        name: Choice<String>,
    }

    impl Run for Pick {
        type Output = String;

        fn run(self, _: &Context) -> Result<String> {
            Ok(self.name.into_inner())
        }
    }

    let files = Arc::new(Mutex::new(Vec::new()));
    let registry = Registry::new([NodeDef::of::<Pick>()], Services::new().with(Growing(Arc::clone(&files))));
    files.lock().unwrap().push("new".into());
    let choices = |registry: &Registry| registry.spec("Pick").unwrap().inputs[0].widget.clone();
    assert_eq!(choices(&registry), Widget::Choice(Vec::new()));
    assert_eq!(choices(&registry.refreshed()), Widget::Choice(vec!["new".into()]));
}

#[test]
fn a_declaration_that_contradicts_itself_is_told() {
    /// Everything about it is wrong.
    #[derive(Node)]
    #[node(category = "toys")]
    #[expect(dead_code, reason = "never run")]
    struct Wrong {
        /// Too large.
        #[input(default = 11, range = 0..=10)]
        large: u32,
        /// Of another kind.
        #[input(default = 1.5)]
        fraction: u32,
        /// Not in the list.
        #[input(choices = ["a"], default = "b", name = "large")]
        choice: Choice<String>,
        /// As it should be.
        #[input(default = 5, range = 0.0..=10.0)]
        right: f32,
    }

    impl Run for Wrong {
        type Output = ();

        fn run(self, _: &Context) -> Result<()> {
            Ok(())
        }
    }

    let registry = Registry::new([NodeDef::of::<Wrong>()], Services::new());
    assert_eq!(
        registry.misdeclared(),
        [
            "input `large` of Wrong does not take its own default, 11",
            "input `fraction` of Wrong does not take its own default, 1.5",
            "input `large` of Wrong is there twice",
            "input `large` of Wrong does not take its own default, \"b\"",
        ]
    );
    assert_eq!(Registry::new(crate::toys::toys(), crate::toys::services()).misdeclared(), [""; 0]);
}

#[test]
#[should_panic(expected = "two nodes are called `Pair`")]
fn two_nodes_of_one_name_are_a_mistake_of_the_program() {
    /// One of a pair.
    #[derive(Node)]
    #[node(category = "toys")]
    struct Pair {}

    impl Run for Pair {
        type Output = ();

        fn run(self, _: &Context) -> Result<()> {
            Ok(())
        }
    }

    let _ = Registry::new([NodeDef::of::<Pair>(), NodeDef::of::<Pair>()], Services::new());
}

use candle_core::{Device, Tensor};

use super::*;
use crate::adapters::{Form, Module};
use crate::schedule::Prediction;
use crate::testing::{Golden, relative_error, value};

fn unet() -> UNet {
    UNet::load(&Golden::open("unet_narrow").weights().part("model.diffusion_model.")).unwrap()
}

fn run(unet: &UNet) -> Tensor {
    let (x, context) = (value("x", &[1, 4, 8, 8], 1.5), value("context", &[1, 77, 160], 1.5));
    let timesteps = Tensor::new(&[500.0_f32], &Device::Cpu).unwrap();
    unet.forward(&x, &timesteps, &context, None).unwrap()
}

/// A LoRA of rank 1 on one layer.
fn lora(unet: &UNet, layer: &str) -> Change {
    let (_, shape) = crate::nn::layers(unet).into_iter().find(|(name, _)| name == layer).unwrap();
    let (up, down) = (value("up", &[shape[0], 1], 1.0), value("down", &[1, shape[1]], 1.0));
    let module = Module { form: Form::LowRank { up, down }, scale: 1.0, magnitude: None };
    let name = format!("lora_unet_{}", layer.replace('.', "_"));
    Change::Lora(LoraModel { modules: BTreeMap::from([(name, module)]), ..LoraModel::default() })
}

fn hook(change: Change, on_unet: f64) -> Hooks {
    Hooks::of(WeightHook { name: "test".to_owned(), change, on_unet, on_text: 0.0 })
}

const LAYER: &str = "middle_block.1.proj_in";

fn frames(frames: &[(f64, f64)]) -> Keyframes {
    let frame = |&(strength, start): &(f64, f64)| Keyframe { strength, start, levels: 1 };
    frames.iter().map(frame).fold(Keyframes::default(), |keyframes, frame| keyframes.with(frame))
}

#[test]
fn hooks_are_joined_without_repeating_one() {
    let unet = unet();
    let (one, two) = (hook(lora(&unet, LAYER), 1.0), hook(lora(&unet, LAYER), 2.0));
    let both = one.and(&two).and(&one);
    assert_eq!(both.changes().map(|hook| hook.on_unet).collect::<Vec<_>>(), [1.0, 2.0]);
    assert!(both.are(&both.clone()) && !both.are(&two.and(&one)) && !both.are(&one));
    let following = both.following(&frames(&[(0.5, 0.0)]));
    // The same changes at other times are another set.
    assert!(!following.are(&both) && following.and(&both).are(&following));
    assert!(Hooks::default().is_empty() && Hooks::default().are(&Hooks::default()));
}

#[test]
fn a_network_follows_the_keyframes_of_its_hooks() {
    let unet = unet();
    let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
    let hooks = hook(lora(&unet, LAYER), 0.8).following(&frames(&[(1.0, 0.0), (0.0, 0.5)]));
    let mut hooked = Hooked::from(14.6);
    let plain = run(&unet);
    hooked.reach(&hooks, 14.6, &sampling);
    let with = run(hooked.network(&hooks, &unet).unwrap());
    assert!(relative_error(&with, &plain) > 1e-3);
    // A LoRA that lies on the network is the same.
    let Change::Lora(lora) = lora(&unet, LAYER) else { panic!("a LoRA") };
    let placement = lora.place(&Names::of(&unet, None), |_| 0.8, None).unwrap();
    assert!(relative_error(&with, &run(&placement.attach(Part::Unet, &unet).unwrap())) < 1e-6);
    // Half of the way is a level of 1.6.
    hooked.reach(&hooks, 1.5, &sampling);
    assert!(relative_error(&run(hooked.network(&hooks, &unet).unwrap()), &plain) < 1e-6);
    assert_eq!(hooked.networks.len(), 1, "the network before is given up");
}

/// Adapters of a network stay on top where it moves to another.
#[test]
fn a_network_moves_to_another_and_keeps_its_adapters() {
    let other = Golden::open("unet_narrow");
    let unet = unet();
    let tensors = other.weights().part("model.diffusion_model.");
    let doubled = UNet::load(&tensors.mixed(&tensors, &|_| Some([1.0, 1.0])).unwrap().0).unwrap();
    let moved = hook(Change::Model { unet: Some(Box::new(doubled.clone())), encoders: None }, 1.0);
    let mut hooked = Hooked::default();
    assert!(relative_error(&run(hooked.network(&moved, &unet).unwrap()), &run(&doubled)) < 1e-5);
    let on = |unet: &UNet| {
        let Change::Lora(lora) = lora(unet, LAYER) else { panic!("a LoRA") };
        lora.place(&Names::of(unet, None), |_| 0.8, None).unwrap().attach(Part::Unet, unet).unwrap()
    };
    let mut hooked = Hooked::default();
    let found = run(hooked.network(&moved, &on(&unet)).unwrap());
    assert!(relative_error(&found, &run(&on(&doubled))) < 1e-5);
    assert!(relative_error(&found, &run(&doubled)) > 1e-4);
}

#[test]
fn stages_are_cut_where_any_keyframe_begins() {
    let unet = unet();
    let one = hook(lora(&unet, LAYER), 1.0).following(&frames(&[(1.0, 0.0), (0.5, 0.6)]));
    let two = hook(lora(&unet, LAYER), 1.0).following(&frames(&[(0.2, 0.3), (0.4, 0.6), (0.4, 0.8)]));
    let stages = one.and(&two).stages();
    // Before its first keyframe a hook has its own strength.
    let expected = [([0.0, 0.3], vec![1.0, 1.0]), ([0.3, 0.6], vec![1.0, 0.2]), ([0.6, 1.0], vec![0.5, 0.4])];
    assert_eq!(stages, expected);
    assert_eq!(hook(lora(&unet, LAYER), 1.0).stages(), [([0.0, 1.0], vec![1.0])]);
}

#[test]
fn a_lora_for_other_layers_is_idle() {
    let unet = unet();
    let fits = hook(lora(&unet, LAYER), 1.0);
    assert!(!fits.changes().next().unwrap().is_idle_on(&unet).unwrap());
    let Change::Lora(mut other) = lora(&unet, LAYER) else { panic!("a LoRA") };
    other.modules = other.modules.into_values().map(|module| ("lora_unet_nowhere".to_owned(), module)).collect();
    let other = hook(Change::Lora(other), 1.0);
    assert!(other.changes().next().unwrap().is_idle_on(&unet).unwrap());
}

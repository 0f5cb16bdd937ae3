//! What must hold of every row of the table, and ComfyUI's own results.

use std::cell::Cell;
use std::ops::ControlFlow;

use candle_core::{Device, Tensor};

use super::*;

const CPU: Device = Device::Cpu;

/// The ideal denoiser of Gaussian data of unit deviation, whose path from noise to data has a closed form.
struct Gaussian;

impl Denoiser for Gaussian {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        divide(x, 1.0 + sigma * sigma)
    }
}

/// The consistency function of the same data: where the path through `x` ends.
struct GaussianEnd;

impl Denoiser for GaussianEnd {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        divide(x, (1.0 + sigma * sigma).sqrt())
    }
}

/// What a sampler's formulas make of any denoiser: neither linear nor a function of the level alone. Divisions and
/// products only, so that it is the same to the bit in the recordings.
struct Toy;

impl Denoiser for Toy {
    /// The negative prompts see a little less.
    fn denoise_apart(&self, x: &Tensor, sigma: f32) -> Result<[Tensor; 2]> {
        let denoised = self.denoise(x, sigma)?;
        let negative = crate::tensors::scale(&denoised, 0.875)?;
        Ok([denoised, negative])
    }

    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        let scaled = divide(x, 0.5 + sigma)?;
        let bent = (&scaled / (scaled.abs()? + 1.0)?)?;
        crate::tensors::add_scaled(&(bent * 0.8)?, x, 0.15 / (1.0 + sigma * sigma))
    }
}

fn go_on(_: Step, _: &Tensor) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Rows whose steps are their own: they come to other levels than those of the schedule.
const OWN_STEPS: [&str; 2] = ["dpm_fast", "dpm_adaptive"];

/// The rows that step from level to level.
fn stepping() -> impl Iterator<Item = &'static Sampler> {
    SAMPLERS.iter().filter(|sampler| !OWN_STEPS.contains(&sampler.name))
}

/// Levels evenly spaced in the logarithm from 14.6 to 0.03, without a last step to 0: none of them is special.
fn levels(steps: usize) -> Vec<f32> {
    let (start, end) = (14.6_f32.ln(), 0.03_f32.ln());
    (0..=steps).map(|i| (start + (end - start) * i as f32 / steps as f32).exp()).collect()
}

/// The relative error in the deviation of what a sampler makes of Gaussian data.
///
/// A sampler is linear in its start and its noise when the denoiser is. So each is given a direction of its own, a unit
/// vector: the squared length of the result is then the variance of a sample, exactly and without drawing any.
fn deviation_error(sampler: &Sampler, steps: usize) -> f64 {
    let sigmas = levels(steps);
    let deviation = |sigma: f32| (1.0 + f64::from(sigma).powi(2)).sqrt();
    let unit = move |direction: usize| {
        let mut vector = vec![0.0_f32; steps + 1];
        vector[direction] = 1.0;
        Ok(Tensor::new(vector, &CPU)?)
    };
    let start = (unit(0).unwrap() * deviation(sigmas[0])).unwrap();
    let mut drawn = 0;
    let mut noise = Noise::from_fn(move |_, _| {
        drawn += 1;
        unit(drawn)
    });
    let model: &dyn Denoiser = if sampler.order == Some(0) { &GaussianEnd } else { &Gaussian };
    let end = (sampler.sample)(model, start, &sigmas, &mut noise, &mut go_on).unwrap();
    let length: f64 = end.to_vec1::<f32>().unwrap().iter().map(|x| f64::from(*x).powi(2)).sum();
    length.sqrt() / deviation(sigmas[steps]) - 1.0
}

#[test]
fn errors_fall_with_the_order_that_is_stated() {
    for sampler in SAMPLERS {
        let Some(order) = sampler.order else { continue };
        let [rough, fair, fine] = [50, 100, 200].map(|steps| deviation_error(sampler, steps).abs());
        if order == 0 {
            assert!(rough.max(fair).max(fine) < 1e-6, "{}: {rough} {fair} {fine}", sampler.name);
            continue;
        }
        let order = f64::from(order);
        let measured = (fair / fine).log2();
        assert!(
            measured > order - 0.1 && measured < order + 0.5,
            "{}: order {measured:.2}, stated {order}",
            sampler.name
        );
        assert!(rough < 0.3_f64.powf(order), "{}: error {rough} at 50 steps", sampler.name);
    }
}

fn start(seed: u64) -> Tensor {
    let noise = crate::noise::initial((2, 4, 6, 6), seed, None, &CPU).unwrap();
    (noise * 14.614641).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn run(sampler: &Sampler, seed: u64, sigmas: &[f32], observe: Observe<'_>) -> Result<Tensor> {
    let x = start(seed);
    let mut noise = match sampler.source {
        Source::Fresh => Noise::independent(seed, x.shape(), &CPU),
        Source::Path => Noise::path(seed, sigmas, x.shape(), &CPU),
    };
    (sampler.sample)(&Toy, x, sigmas, &mut noise, observe)
}

#[test]
fn equal_seeds_repeat_and_others_do_not() {
    for sampler in SAMPLERS {
        let sample = |seed| values(&run(sampler, seed, &levels(9), &mut go_on).unwrap());
        assert_eq!(sample(5), sample(5), "{}", sampler.name);
        assert_ne!(sample(5), sample(6), "{}", sampler.name);
    }
}

#[test]
fn each_step_is_told_once_and_break_stops() {
    for sampler in stepping() {
        let sigmas = levels(6);
        let mut told = Vec::new();
        run(sampler, 1, &sigmas, &mut |step, denoised| {
            assert_eq!(denoised.dims(), [2, 4, 6, 6]);
            told.push(step);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(told, steps(&sigmas).collect::<Vec<_>>(), "{}", sampler.name);

        let mut seen = 0;
        let stopped = run(sampler, 1, &sigmas, &mut |step, _| {
            seen += 1;
            if step.index == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(Error::Stopped)), "{}", sampler.name);
        assert_eq!(seen, 3, "{}", sampler.name);
    }
}

#[test]
fn fewer_than_two_levels_are_no_step() {
    for sampler in SAMPLERS {
        for sigmas in [&[][..], &[3.0]] {
            let unchanged = run(sampler, 1, sigmas, &mut |_, _| panic!("no step is to be told")).unwrap();
            assert_eq!(values(&unchanged), values(&start(1)), "{}", sampler.name);
        }
    }
}

/// A model that breaks down at its fourth evaluation.
struct Overflows(Cell<usize>);

impl Denoiser for Overflows {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        self.0.set(self.0.get() + 1);
        let seen = Toy.denoise(x, sigma)?;
        if self.0.get() == 4 { Ok((seen * f64::INFINITY)?) } else { Ok(seen) }
    }
}

#[test]
fn what_is_no_number_is_an_error_at_its_step() {
    for sampler in stepping() {
        let sigmas = levels(6);
        let model = Overflows(Cell::new(0));
        let mut noise = Noise::independent(1, start(1).shape(), &CPU);
        let failed = (sampler.sample)(&model, start(1), &sigmas, &mut noise, &mut go_on);
        let Err(Error::NotFinite { step, steps: 6, sigma }) = failed else {
            panic!("{}: {failed:?}", sampler.name);
        };
        // One to three evaluations a step.
        assert!((2..=4).contains(&step), "{}: step {step}", sampler.name);
        assert_eq!(sigma, sigmas[step - 1], "{}", sampler.name);
    }
}

#[test]
fn names_are_unique_and_found() {
    for (i, sampler) in SAMPLERS.iter().enumerate() {
        assert_eq!(find(sampler.name).unwrap(), sampler);
        assert!(SAMPLERS[i + 1..].iter().all(|other| other.name != sampler.name));
    }
    let error = find("dpm++").unwrap_err().to_string();
    assert!(error.starts_with("no sampler is called `dpm++`, perhaps you mean `dpm"), "{error}");
}

/// Recordings of ComfyUI's samplers on [`Toy`].
#[test]
fn comfyui_samples_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/samplers/comfyui.safetensors");
    let recorded = candle_core::safetensors::load(path, &CPU).unwrap();
    let mut names: Vec<_> = recorded.keys().filter(|name| name.starts_with("end/")).collect();
    names.sort();
    let mut off = Vec::new();
    for name in &names {
        let parts: Vec<_> = name.split('/').collect();
        let sampler = find(parts[1]).unwrap();
        let sigmas = values(&recorded[&format!("sigmas/{}", parts[2])]);
        let found = values(&run(sampler, 7, &sigmas, &mut go_on).unwrap());
        let expected = values(&recorded[*name]);
        let size = expected.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let error: f64 = found.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        let bound = match parts[1] {
            // Integrals as sums of thousands of single-precision numbers, and systems of equations in single precision.
            "deis" | "uni_pc" | "uni_pc_bh2" | "sa_solver" | "sa_solver_pece" | "er_sde" => 1e-4,
            // The step's length hangs on the error of the last.
            "dpm_adaptive" => 1e-3,
            // Increments that are differences of nearly equal numbers; 2.4e-5 at most.
            name if find(name).unwrap().source == Source::Path => 1e-4,
            _ => 2e-6,
        };
        if error > bound * size {
            off.push(format!("{name}: {:.1e}", error / size));
        }
    }
    assert!(off.is_empty(), "{off:#?}");
    assert_eq!(names.len(), SAMPLERS.len() * 5);
}

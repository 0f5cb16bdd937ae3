//! The same numbers with a folder that is empty, one that is full, a damaged one, and none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor, Var};
use half::{bf16, f16};
use paraflow_kernels::Precision;
use safetensors::tensor::{Dtype, TensorView};

use super::super::{Compute, Conv2d, Geometry, Kept, Linear, Weights};
use super::*;
use crate::testing::{uniform, value};

/// A folder of this test's own, with a model's file in it.
struct Bench {
    folder: PathBuf,
    told: Arc<Mutex<Vec<String>>>,
}

/// What is known of each file: its inode tells one that was replaced.
type Listing = BTreeMap<String, (SystemTime, u64)>;

impl Bench {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("paraflow-prepacked-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self { folder, told: Arc::default() }
    }

    /// A file with a linear layer, one that stays in 16 bits, a convolution, and one that is too small to be kept.
    fn write(&self, key: &str, dtype: Dtype) {
        let shapes: [(&str, &[usize]); 4] =
            [("linear", &[192, 264]), ("large", &[512, 520]), ("conv", &[80, 48, 3, 3]), ("small", &[8, 264])];
        let numbers = |name: &str, shape: &[usize]| uniform(&format!("{key}{name}"), shape.iter().product());
        let bytes = |x: f64| match dtype {
            Dtype::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
            _ => (x as f32).to_le_bytes().to_vec(),
        };
        let drawn = shapes
            .map(|(name, shape)| (name, shape, numbers(name, shape).into_iter().flat_map(bytes).collect::<Vec<u8>>()));
        let views = drawn.iter().map(|(name, shape, bytes)| {
            (format!("{name}.weight"), TensorView::new(dtype, shape.to_vec(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        // As the documentation asks for: beside it, then renamed.
        fs::write(self.folder.join("new"), bytes).unwrap();
        fs::rename(self.folder.join("new"), self.model()).unwrap();
    }

    fn model(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("kept")
    }

    /// As a process that was just started.
    fn prepacked(&self) -> Arc<Prepacked> {
        let told = self.told.clone();
        Arc::new(Prepacked::open(&self.kept(), move |text| told.lock().unwrap().push(text)).unwrap())
    }

    fn with(&self) -> Outputs {
        outputs(&self.model(), &Compute::default().prepacked_in(self.prepacked()))
    }

    fn without(&self) -> Outputs {
        outputs(&self.model(), &Compute::default())
    }

    /// Warnings since the last look.
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// Files of an ending.
    fn listing(&self, ending: &str) -> Listing {
        let entries = fs::read_dir(self.kept()).unwrap().map(|entry| entry.unwrap());
        let ours = entries.filter(|entry| entry.path().extension().is_some_and(|found| found == ending));
        ours.map(|entry| {
            let metadata = entry.metadata().unwrap();
            #[cfg(unix)]
            let number = std::os::unix::fs::MetadataExt::ino(&metadata);
            #[cfg(not(unix))]
            let number = 0;
            (entry.file_name().into_string().unwrap(), (metadata.modified().unwrap(), number))
        })
        .collect()
    }

    /// Changes each packed weight's bytes.
    fn change(&self, change: impl Fn(&mut Vec<u8>)) {
        for name in self.listing(PACKED).into_keys() {
            let path = self.kept().join(name);
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The bits of what layers give and of what they take back, by their names.
type Outputs = BTreeMap<&'static str, Vec<u32>>;

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Opens the file anew and runs every layer of it.
fn outputs(model: &Path, compute: &Compute) -> Outputs {
    let weights = Weights::open(model).unwrap().on(compute);
    let linear = |name: &str, input, output| Linear::load_without_bias(&weights.at(name), input, output).unwrap();
    let mut outputs = Outputs::new();
    for (name, input, output) in [("linear", 264, 192), ("large", 520, 512), ("small", 264, 8)] {
        let x = Var::from_tensor(&value("x", &[2, 5, input], 1.0)).unwrap();
        let y = linear(name, input, output).forward(&x).unwrap();
        outputs.insert(name, bits(&y));
        if compute.precision() == Precision::Single {
            let back = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            outputs.insert(if name == "large" { "large, turned" } else { "back" }, bits(back.get(&x).unwrap()));
        }
    }
    let geometry = Geometry::Conv2d { stride: 1, before: 1, after: 1 };
    let conv = Conv2d::load_without_bias(&weights.at("conv"), 48, 80, 3, geometry).unwrap();
    outputs.insert("conv", bits(&conv.forward(&value("x", &[1, 6, 7, 48], 1.0)).unwrap()));
    outputs
}

/// Long enough for a file's identity to be trusted.
fn settle() {
    std::thread::sleep(Duration::from_millis(3100));
}

#[test]
fn all_numbers_are_the_same_with_an_empty_folder_a_full_one_and_none() {
    let bench = Bench::new("same");
    let computes = |compute: &Compute| {
        let precisions = [Precision::Single, Precision::Bf16].map(|precision| compute.multiplying_in(precision));
        precisions
            .into_iter()
            .flat_map(|compute| [Kept::AsStored, Kept::Half, Kept::E4m3].map(|kept| compute.keeping(kept)))
    };
    let mut files = 0;
    for (key, dtype) in [("a", Dtype::F32), ("a", Dtype::F16), ("a", Dtype::BF16), ("b", Dtype::F32)] {
        bench.write(key, dtype);
        // All of them in one folder: no file may be taken for another's.
        for (plain, with) in
            computes(&Compute::default()).zip(computes(&Compute::default().prepacked_in(bench.prepacked())))
        {
            let expected = outputs(&bench.model(), &plain);
            assert_eq!(outputs(&bench.model(), &with), expected, "{dtype:?} {plain:?}, first");
            let written = bench.listing(PACKED);
            // f16 is what its half is, so that reading is the same, and its files are.
            let same = dtype == Dtype::F16 && plain.kept() == Kept::Half;
            assert_eq!(written.len() - files, if same { 0 } else { 3 }, "{dtype:?} {plain:?}");
            files = written.len();
            let again = with.prepacked_in(bench.prepacked());
            assert_eq!(outputs(&bench.model(), &again), expected, "{dtype:?} {plain:?}, again");
            assert_eq!(bench.listing(PACKED), written, "nothing was packed again");
        }
    }
    assert_eq!(bench.told(), [] as [String; 0]);
    assert_eq!(fs::read_dir(bench.kept().join(UNFINISHED)).unwrap().count(), 0);
}

#[test]
fn a_damaged_file_is_told_of_and_replaced() {
    let bench = Bench::new("damaged");
    bench.write("a", Dtype::F32);
    let expected = bench.without();
    assert_eq!(bench.with(), expected);
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));
    let damages: [Damage<'_>; 7] = [
        ("has other numbers than were written", &|bytes| *bytes.last_mut().unwrap() ^= 1),
        ("has other numbers than were written", &|bytes| bytes[128] ^= 0x80),
        ("is cut short or too long", &|bytes| bytes.truncate(bytes.len() - 64)),
        ("is cut short or too long", &|bytes| bytes.push(0)),
        ("is cut short or too long: 0 bytes of", &Vec::clear),
        ("has a damaged head", &|bytes| bytes[70] ^= 4),
        ("has a damaged head", &|bytes| bytes[..8].fill(0)),
    ];
    for (word, damage) in damages {
        let before = bench.listing(PACKED);
        bench.change(damage);
        assert_eq!(bench.with(), expected, "{word}");
        let told = bench.told();
        assert!(told.len() == before.len() && told.iter().all(|told| told.contains(word)), "{told:?} for {word}");
        assert!(told[0].ends_with("; it is packed anew and replaced") && told[0].contains("kept"), "{told:?}");
        assert_eq!(bench.with(), expected);
        assert_eq!(bench.told(), [] as [String; 0], "replaced");
    }
}

#[test]
fn another_version_is_told_of_once_and_replaced() {
    let bench = Bench::new("version");
    bench.write("a", Dtype::F16);
    let expected = bench.without();
    for place in [8, 12, 16] {
        assert_eq!(bench.with(), expected);
        bench.change(|bytes| bytes[place] += 1);
        let before = bench.listing(PACKED);
        assert_eq!(bench.with(), expected);
        let told = bench.told();
        assert!(told.len() == 1 && told[0].contains("is of another version"), "{told:?}");
        let after = bench.listing(PACKED);
        assert!(before.keys().eq(after.keys()) && before.values().zip(after.values()).all(|(old, new)| old != new));
    }
}

#[test]
fn a_file_under_anothers_name_is_not_taken() {
    let bench = Bench::new("names");
    bench.write("a", Dtype::F32);
    bench.with();
    let files: Vec<PathBuf> = bench.listing(PACKED).into_keys().map(|name| bench.kept().join(name)).collect();
    fs::copy(&files[0], &files[1]).unwrap();
    assert_eq!(bench.with(), bench.without());
    assert_eq!(bench.told().len(), 1);
}

#[test]
fn where_nothing_can_be_written_the_run_goes_on_in_memory() {
    let bench = Bench::new("unwritable");
    bench.write("a", Dtype::F32);
    // A file where a folder should be stops everybody, also those whom permissions do not.
    fs::create_dir_all(bench.kept()).unwrap();
    fs::write(bench.kept().join(UNFINISHED), "").unwrap();
    assert_eq!(bench.with(), bench.without());
    let told = bench.told();
    assert!(told.len() == 1 && told[0].contains("kept`: cannot be written: "), "{told:?}");
    assert!(told[0].contains("stay in memory; free some space"), "{told:?}");
    assert!(bench.listing(PACKED).is_empty());
    assert!(matches!(Prepacked::open(&bench.model(), |_| ()), Err(Error::Unwritable { .. })));
}

#[test]
#[cfg(unix)]
fn a_folder_that_may_only_be_read_serves_what_it_has() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new("readonly");
    bench.write("a", Dtype::F32);
    let expected = bench.with();
    let allow = |mode| fs::set_permissions(bench.kept(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    assert_eq!(bench.with(), expected);
    assert_eq!(bench.told(), [] as [String; 0], "nothing had to be written");
    allow(0o755);
}

#[test]
fn several_at_once_do_no_harm() {
    let bench = Bench::new("several");
    bench.write("a", Dtype::F16);
    let expected = bench.without();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.with())).collect();
            all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), expected));
        });
        assert_eq!(bench.told(), [] as [String; 0]);
        assert_eq!(fs::read_dir(bench.kept().join(UNFINISHED)).unwrap().count(), 0);
        assert_eq!(bench.listing(PACKED).len(), 3);
        assert_eq!(Prepacked::empty(&bench.kept()).unwrap().weights, 3);
    }
}

#[test]
fn what_comes_from_no_mapped_file_is_not_kept() {
    let bench = Bench::new("memory");
    bench.write("a", Dtype::F32);
    let compute = Compute::default().prepacked_in(bench.prepacked());
    let bytes = fs::read(bench.model()).unwrap();
    let run = |weights: &Weights, name: &str| {
        let layer = Linear::load_without_bias(&weights.at(name), 264, 192).unwrap();
        layer.forward(&value("x", &[1, 264], 1.0)).unwrap()
    };
    run(&Weights::from_bytes("memory", bytes).unwrap().on(&compute), "linear");
    let file = Weights::open(bench.model()).unwrap().on(&compute);
    let (mixed, _) = file.mixed(&file, &|_| Some([0.5, 0.25])).unwrap();
    run(&mixed, "linear");
    let layer = Linear::load_without_bias(&file.at("linear"), 264, 192).unwrap();
    let replaced = layer.weight().replaced(value("other", &[192, 264], 1.0)).unwrap();
    replaced.forward(&value("x", &[1, 264], 1.0)).unwrap();
    assert!(bench.listing(PACKED).is_empty());
    run(&file, "linear");
    assert_eq!(bench.listing(PACKED).len(), 1);
}

#[test]
#[cfg(unix)]
fn hashes_of_tensors_are_remembered_and_checked() {
    let bench = Bench::new("sources");
    bench.write("a", Dtype::F32);
    let expected = bench.with();
    assert!(bench.listing(SOURCE).is_empty(), "a file that was written a moment ago may change unseen");
    settle();
    assert_eq!(bench.with(), expected);
    let written = bench.listing(SOURCE);
    assert_eq!(written.len(), 3);
    assert_eq!(bench.with(), expected);
    assert_eq!(bench.listing(SOURCE), written);
    for name in written.keys() {
        let path = bench.kept().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(bench.with(), expected);
    let told = bench.told();
    assert!(told.len() == 3 && told.iter().all(|told| told.contains("has a damaged head")), "{told:?}");
    assert_eq!(bench.with(), expected);
    assert_eq!(bench.told(), [] as [String; 0]);

    // The same place on the disk, other numbers.
    let packed = bench.listing(PACKED);
    bench.write("b", Dtype::F32);
    settle();
    assert_eq!(bench.with(), bench.without());
    assert_ne!(bench.with(), expected);
    assert_eq!((bench.listing(PACKED).len(), bench.listing(SOURCE).len()), (2 * packed.len(), 6));
}

#[test]
fn a_file_that_changes_while_it_is_packed_leaves_nothing_behind() {
    let bench = Bench::new("changed");
    bench.write("a", Dtype::F32);
    let weights = Weights::open(bench.model()).unwrap();
    let stored = weights.claim("linear.weight", &[&[192, 264]]).unwrap();
    let form = stored.form((192, 264, 1), Precision::Single);
    let (_, range) = stored.mapped().unwrap();
    let prepacked = bench.prepacked();
    let content = hash(&fs::read(bench.model()).unwrap()[range.clone()]);
    // In place, as nobody should.
    let mut bytes = fs::read(bench.model()).unwrap();
    bytes[range.start] ^= 1;
    fs::write(bench.model(), bytes).unwrap();
    let (mapping, _) = stored.mapped().unwrap();
    assert!(!is_as_hashed(mapping, &mapping.as_ref()[range], &content));
    assert_eq!(form.bytes(), prepacked.matrix(&stored, &form).bytes());
}

#[test]
fn a_folder_is_counted_and_emptied_of_ours_only() {
    let bench = Bench::new("emptied");
    bench.write("a", Dtype::F32);
    let expected = bench.with();
    for other in ["notes.txt", "mine.packed", "abc.source"] {
        fs::write(bench.kept().join(other), "mine").unwrap();
    }
    let usage = Prepacked::usage(&bench.kept()).unwrap();
    let form = |output, input, kernel| Form { output, input, kernel, precision: Precision::Single, halves: None };
    let numbers = [form(192, 264, 1), form(512, 520, 1), form(80, 48, 3)].map(|form| form.bytes() as u64 + 128);
    assert_eq!(usage, Usage { weights: 3, bytes: numbers.iter().sum() });
    assert_eq!(Prepacked::empty(&bench.kept()).unwrap(), usage);
    assert_eq!(Prepacked::usage(&bench.kept()).unwrap(), Usage::default());
    assert_eq!(fs::read(bench.kept().join("mine.packed")).unwrap(), b"mine");
    assert_eq!(bench.with(), expected);
    assert!(matches!(Prepacked::usage(&bench.folder.join("nothing")), Err(Error::Unreadable { .. })));
}

#[test]
fn what_a_killed_process_left_is_swept_away_in_time() {
    let bench = Bench::new("swept");
    let unfinished = bench.kept().join(UNFINISHED);
    fs::create_dir_all(&unfinished).unwrap();
    for (name, age) in [("old", 2 * ABANDONED), ("new", ABANDONED / 2)] {
        let file = fs::File::create(unfinished.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    bench.prepacked();
    assert!(!unfinished.join("old").exists() && unfinished.join("new").exists());
}

#[test]
fn an_open_file_outlives_its_name() {
    let bench = Bench::new("unlinked");
    bench.write("a", Dtype::F32);
    bench.with();
    let weights = Weights::open(bench.model()).unwrap().on(&Compute::default().prepacked_in(bench.prepacked()));
    let layer = Linear::load_without_bias(&weights.at("linear"), 264, 192).unwrap();
    let x = Tensor::ones((3, 264), candle_core::DType::F32, &Device::Cpu).unwrap();
    let before = bits(&layer.forward(&x).unwrap());
    Prepacked::empty(&bench.kept()).unwrap();
    assert_eq!(bits(&layer.forward(&x).unwrap()), before);
}

//! The levels that Chen et al. 2024 (arXiv:2405.11326) found for few steps by the geometry of sampling paths: published
//! tables for Stable Diffusion 1.x.

use std::sync::OnceLock;

/// The first line has all levels that occur. Every other one has a coefficient, then for 2 to 20 steps the levels of a schedule
/// by their places in the first line, two digits each.
const TABLES: &str = include_str!("gits.txt");
/// The fewest steps of a table, and the most.
const STEPS: (usize, usize) = (2, 20);

/// Schedules for 2 to 20 steps, by a coefficient in hundredths.
type Tables = Vec<(u32, Vec<Vec<f64>>)>;

fn tables() -> &'static Tables {
    static READ: OnceLock<Tables> = OnceLock::new();
    READ.get_or_init(|| {
        let mut lines = TABLES.lines();
        let number = |text: &str| text.parse::<f64>().expect("the table holds numbers");
        let levels: Vec<f64> = lines.next().expect("there is a first line").split(' ').map(number).collect();
        let row = |row: &str| {
            let place = |pair: &[u8]| usize::from(pair[0] - b'0') * 10 + usize::from(pair[1] - b'0');
            row.as_bytes().chunks_exact(2).map(|pair| levels[place(pair)]).collect()
        };
        let table = |line: &str| {
            let mut words = line.split(' ');
            let coefficient = number(words.next().expect("a line begins with its coefficient"));
            ((coefficient * 100.0).round() as u32, words.map(row).collect())
        };
        lines.map(table).collect()
    })
}

/// The levels for a coefficient from 0.80 to 1.50 in steps of 0.05 and a number of steps, one more than those, the last above 0;
/// for more than 20 steps, between those of 20 in the logarithm. `None` for another coefficient or fewer than 2 steps.
#[must_use]
pub fn by_geometry(coefficient: f64, steps: usize) -> Option<Vec<f32>> {
    let wanted = (coefficient * 100.0).round() as u32;
    let (_, table) = tables().iter().find(|(coefficient, _)| *coefficient == wanted)?;
    let levels = table.get(steps.min(STEPS.1).checked_sub(STEPS.0)?)?;
    if steps <= STEPS.1 {
        return Some(levels.iter().map(|level| *level as f32).collect());
    }
    let level = |i: usize| {
        let place = i as f64 / steps as f64 * (levels.len() - 1) as f64;
        let low = (place.floor() as usize).min(levels.len() - 2);
        let (a, b) = (levels[low].ln(), levels[low + 1].ln());
        (a + (b - a) * (place - low as f64)).exp() as f32
    };
    Some((0..=steps).map(level).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_whole_and_falls() {
        assert_eq!(tables().len(), 15);
        for (coefficient, table) in tables() {
            assert_eq!(table.len(), STEPS.1 - STEPS.0 + 1, "{coefficient}");
            for (index, row) in table.iter().enumerate() {
                assert_eq!(row.len(), index + STEPS.0 + 1, "{coefficient}");
                assert!(row.windows(2).all(|pair| pair[0] > pair[1]), "{coefficient}: {row:?}");
            }
        }
        let few = by_geometry(1.5, 2).unwrap();
        let close =
            few.iter().zip([14.614_641_f32, 0.547_559_26, 0.029_167_53]).all(|(a, b)| (a / b - 1.0).abs() < 1e-6);
        assert!(few.len() == 3 && close, "{few:?}");
        assert_eq!(by_geometry(1.2, 40).unwrap().len(), 41);
        assert!(by_geometry(1.21, 10).is_none() && by_geometry(1.2, 1).is_none());
    }
}

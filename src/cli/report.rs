//! How faults look: `error: …`, then the way out on a line of its own. Coloured only on a terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

/// Prints `error: …`, and `hint: …` below it where one is known: given here, or on the text's own second line.
pub(crate) fn error(text: impl Display, hint: Option<&str>) {
    let text = text.to_string();
    let (fact, own) = text.split_once("\nhint: ").map_or((text.as_str(), None), |(fact, own)| (fact, Some(own)));
    line("error", "31", fact);
    for way_out in own.into_iter().chain(hint) {
        line("hint", "36", way_out);
    }
}

/// Prints `warning: …`.
pub(crate) fn warning(text: impl Display) {
    line("warning", "33", &text.to_string());
}

/// Prints one line of data to stdout. A closed pipe ends the output, not the work.
pub(crate) fn data(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints a remark to stderr: not data, not a fault.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn line(label: &str, colour: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = if stderr.is_terminal() {
        writeln!(stderr, "\x1b[1;{colour}m{label}\x1b[0m: {text}")
    } else {
        writeln!(stderr, "{label}: {text}")
    };
}

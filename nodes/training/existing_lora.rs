//! The file that a training goes on with.

use crate::error::Error;
use crate::files::{Folder, ModelName, Place, mismatch, place};
use crate::personalize::Loras;
use paraflow_engine::{Given, Input, Mismatch, Services, Value, Widget};

/// ComfyUI's word for none.
const NONE: &str = "[None]";

/// The name of a LoRA, or `[None]`.
pub(super) struct LoraOrNone(String);

impl LoraOrNone {
    /// The file, if it names one.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn find(&self, services: &Services) -> Result<Option<Place>, Error> {
        if self.0 == NONE { Ok(None) } else { place::<Loras>(&self.0, services).map(Some) }
    }

    /// How many steps it was trained, as its name tells: the number before `_steps_`, 0 for none.
    ///
    /// # Errors
    /// Its name does not tell.
    pub(super) fn steps(&self) -> Result<i64, Error> {
        if self.0 == NONE {
            return Ok(0);
        }
        let before = self.0.split("_steps_").next().unwrap_or_default();
        let number = before.rsplit('_').next().unwrap_or_default();
        number.parse().map_err(|_| Error::Unfit {
            what: "`existing_lora`",
            expected: "a file whose name tells its steps, such as `bear_120_steps_00001_.safetensors`".to_owned(),
            found: format!("`{}`", self.0),
        })
    }
}

impl Input for LoraOrNone {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;
    const FOLDER: Option<&'static str> = Some(Loras::KEY);

    fn widget(services: &Services) -> Widget {
        let Widget::Choice(mut names) = ModelName::<Loras>::widget(services) else {
            return Widget::Choice(Vec::new());
        };
        names.push(NONE.to_owned());
        Widget::Choice(names)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        if name == NONE {
            return Ok(());
        }
        let steps = Self(name.to_owned()).steps();
        steps.map_err(|error| mismatch("a LoRA whose name tells its steps", name, &error))?;
        ModelName::<Loras>::check(literal, services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        match literal.get::<String>() {
            Some(name) if name != NONE => ModelName::<Loras>::fingerprint(literal, services),
            _ => Ok(None),
        }
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_steps_as_comfyui_reads_them() {
        let steps = |name: &str| LoraOrNone(name.to_owned()).steps();
        assert_eq!(steps("[None]").unwrap(), 0);
        assert_eq!(steps("loras/bear_120_steps_00001_.safetensors").unwrap(), 120);
        assert_eq!(steps("bear_1_steps_of_2_steps_00001_.safetensors").unwrap(), 1);
        let error = steps("bear.safetensors").unwrap_err().to_string();
        assert!(error.contains("120_steps_") && error.contains("`bear.safetensors`"), "{error}");
    }
}

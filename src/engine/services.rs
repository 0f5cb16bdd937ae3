//! The outside world, as `main` hands it to nodes: one value a type, and no global.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::sync::Arc;

/// Values by type: asset folders, the device, limits. The engine knows none of them; nodes ask for them by type.
#[derive(Clone, Default)]
pub struct Services {
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Services {
    /// No services, as the documentation of nodes needs none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more. A second one of the same type takes the place of the first.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(mut self, service: T) -> Self {
        self.by_type.insert(TypeId::of::<T>(), Arc::new(service));
        self
    }

    /// The service of that type, if there is one.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.by_type.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The service of that type.
    ///
    /// # Panics
    ///
    /// Where there is none: the program was put together wrongly. In a node's run, the panic becomes the node's error.
    #[must_use]
    pub fn expect<T: Any>(&self) -> &T {
        self.get().unwrap_or_else(|| panic!("no service of type `{}` was given to the registry", type_name::<T>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_a_type() {
        let services = Services::new().with(1_u8).with("folder").with(2_u8);
        assert_eq!(services.get::<u8>(), Some(&2));
        assert_eq!(services.expect::<&str>(), &"folder");
        assert_eq!(services.get::<i64>(), None);
    }
}

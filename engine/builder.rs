//! Setters of option structs.

/// Gives an option struct a method for each field, which sets it and returns the struct, so that options are written as
/// `Limits::default().max_tokens(64)` and new fields break nobody.
macro_rules! setters {
    ($type:ident $(<$life:lifetime>)? { $($field:ident: $kind:ty),+ $(,)? }) => {
        impl$(<$life>)? $type$(<$life>)? {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

pub(crate) use setters;

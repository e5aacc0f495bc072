//! The macro that makes a component of a handler.

/// Exports a [`Handler`](crate::Handler) as the component's `lantern:handler/pipeline` and `lantern:handler/describe`.
///
/// Once per component, in a crate of type `cdylib`. Elsewhere than on wasm it only checks the type.
#[macro_export]
macro_rules! export {
    ($handler:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::lantern::handler::{describe, pipeline};
            use $crate::bindings::lantern::handler::types;

            ::std::thread_local! {
                static SLOT: $crate::component::Slot<$handler> =
                    const { $crate::component::Slot::new() };
            }

            struct Component;

            impl pipeline::Guest for Component {
                fn init(
                    context: pipeline::ModelContext,
                ) -> ::std::result::Result<(), types::Error> {
                    SLOT.with(|slot| slot.init(context))
                }

                fn preprocess(
                    request: types::Request,
                ) -> ::std::result::Result<pipeline::Step, types::Error> {
                    SLOT.with(|slot| slot.preprocess(request))
                }

                fn postprocess(
                    outputs: ::std::vec::Vec<types::Tensor>,
                    carry: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<types::Response, types::Error> {
                    SLOT.with(|slot| slot.postprocess(outputs, &carry))
                }
            }

            impl describe::Guest for Component {
                fn describe() -> ::std::result::Result<::std::string::String, types::Error> {
                    SLOT.with(|slot| slot.describe())
                }
            }

    $crate::bindings::__export_component!(Component with_types_in $crate::bindings);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn is_handler<H: $crate::Handler>() {}
            is_handler::<$handler>();
        };
    };
}

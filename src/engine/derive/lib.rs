//! `#[derive(Node)]`: reads a documented struct into a node's declaration. Knows nothing but the names of the items
//! that it writes, all of them in `paraflow_engine`.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Expr, Fields, Lit, Meta, Result, Token, parse_macro_input};

/// Declares a node: the struct's doc comment and attributes describe it, each field is an input.
///
/// On the struct, `#[node(…)]`: `category = "…"` (required), `name` (the class name, else the struct's),
/// `display_name`, `version` (1 if not given), `compute` (one at a time), `sink` (a graph runs for its sake),
/// `input_is_list`, `deprecated`, `experimental`, `volatile` (never reused from an earlier run), `outputs = ["…"]` (names other than
/// the kinds).
///
/// On a field, `#[input(…)]`: `name` (else the field's), `default`, `range`, `step`, `round`, `choices`, `multiline`,
/// `dynamic_prompts`, `kind = "IMAGE,MASK"`, `force_input`, `control_after_generate`, `image_upload`, `image_folder`
/// (where its pictures lie), `display` (how it is drawn: `"color"`, `"number"`, `"slider"`), `advanced` (folded away while
/// it stands at its default), `rest` for the field that takes the wires which no other does,
/// `grows = ("image", 2, 50)` for a `Vec<_>` of as many wires as there are, `with = ["a", "b"]` for an `Option<_>` that is
/// there while the choice which its name begins with is one of these, and `matches = "a"` for inputs of one kind.
#[proc_macro_derive(Node, attributes(node, input))]
pub fn derive_node(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    expand(&item).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let node = NodeAttributes::read(item)?;
    let inputs = fields(item)?.into_iter().map(InputField::read).collect::<Result<Vec<_>>>()?;
    let struct_name = &item.ident;
    let (name, volatile) = (&node.name, node.volatile);
    let variadic = inputs.iter().any(|input| input.rest);
    let spec = node.spec();
    let fields = inputs.iter().filter(|input| !input.rest).map(InputField::declaration);
    let takes = inputs.iter().map(InputField::take);
    let unused = inputs.iter().all(|input| input.rest).then(|| quote!(let _ = services;));
    Ok(quote! {
        #[automatically_derived]
        impl ::paraflow_engine::Node for #struct_name {
            const NAME: &'static str = #name;
            const VOLATILE: bool = #volatile;
            const VARIADIC: bool = #variadic;

            fn spec() -> ::paraflow_engine::NodeSpec {
                #spec
            }

            fn fields(services: &::paraflow_engine::Services) -> ::std::vec::Vec<::paraflow_engine::Field> {
                #unused
                ::std::vec![#(#fields),*]
            }

            fn take(inputs: &::paraflow_engine::Inputs<'_>) -> ::paraflow_engine::Result<Self> {
                let _ = inputs;
                ::std::result::Result::Ok(Self { #(#takes),* })
            }
        }
    })
}

fn fields(item: &DeriveInput) -> Result<Vec<&syn::Field>> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new_spanned(&item.ident, "a node is a struct whose fields are its inputs"));
    };
    match &data.fields {
        Fields::Named(named) => Ok(named.named.iter().collect()),
        Fields::Unit => Ok(Vec::new()),
        Fields::Unnamed(_) => {
            Err(Error::new_spanned(&item.ident, "the inputs of a node have names: use `{ name: Type }`"))
        }
    }
}

/// What the struct says of the node.
struct NodeAttributes {
    ident: Ident,
    name: TokenStream,
    doc: String,
    category: TokenStream,
    display_name: Option<TokenStream>,
    version: TokenStream,
    outputs: Option<TokenStream>,
    compute: bool,
    sink: bool,
    input_is_list: bool,
    deprecated: bool,
    experimental: bool,
    volatile: bool,
}

impl NodeAttributes {
    fn read(item: &DeriveInput) -> Result<Self> {
        let ident = item.ident.clone();
        let own_name = ident.unraw().to_string();
        let doc = doc(&item.attrs);
        if doc.is_empty() {
            return Err(Error::new_spanned(
                &ident,
                format!("a node is explained to its user: put a doc comment (`///`) above `{own_name}`"),
            ));
        }
        let mut node = Self {
            ident,
            name: quote!(#own_name),
            doc,
            category: TokenStream::new(),
            display_name: None,
            version: quote!(1),
            outputs: None,
            compute: false,
            sink: false,
            input_is_list: false,
            deprecated: false,
            experimental: false,
            volatile: false,
        };
        for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("node")) {
            attribute.parse_nested_meta(|meta| node.read_one(&meta))?;
        }
        if node.category.is_empty() {
            return Err(Error::new_spanned(
                &node.ident,
                "a node has a place in the menu: write `#[node(category = \"…\")]` above it",
            ));
        }
        Ok(node)
    }

    fn read_one(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match key(meta).as_str() {
            "name" => self.name = value(meta)?,
            "category" => self.category = value(meta)?,
            "display_name" => self.display_name = Some(value(meta)?),
            "version" => self.version = value(meta)?,
            "outputs" => self.outputs = Some(value(meta)?),
            "compute" => self.compute = true,
            "sink" => self.sink = true,
            "input_is_list" => self.input_is_list = true,
            "deprecated" => self.deprecated = true,
            "experimental" => self.experimental = true,
            "volatile" => self.volatile = true,
            other => {
                return Err(meta.error(format!(
                    "`{other}` is no attribute of a node; there are name, category, display_name, version, outputs, \
                     compute, sink, input_is_list, deprecated, experimental, volatile"
                )));
            }
        }
        Ok(())
    }

    fn spec(&self) -> TokenStream {
        let Self { name, doc, category, version, compute, sink, input_is_list, deprecated, experimental, .. } = self;
        let display_name = option(self.display_name.as_ref());
        let lane = if *compute { quote!(Compute) } else { quote!(Any) };
        let names = self.outputs.as_ref().map_or_else(|| quote!(&[]), |names| quote!(&#names));
        quote_spanned! { Span::call_site().located_at(self.ident.span()) =>
            ::paraflow_engine::NodeSpec {
                name: #name,
                display_name: #display_name,
                category: #category,
                doc: #doc,
                version: #version,
                lane: ::paraflow_engine::Lane::#lane,
                sink: #sink,
                input_is_list: #input_is_list,
                deprecated: #deprecated,
                experimental: #experimental,
                inputs: ::std::vec::Vec::new(),
                outputs: ::paraflow_engine::named_outputs::<<Self as ::paraflow_engine::Run>::Output>(#names),
            }
        }
    }
}

/// What a field says of the input.
struct InputField<'a> {
    ident: &'a Ident,
    ty: &'a syn::Type,
    name: TokenStream,
    doc: String,
    /// Calls that narrow the field, in the order in which they were written.
    calls: Vec<TokenStream>,
    rest: bool,
    grows: bool,
}

impl<'a> InputField<'a> {
    fn read(field: &'a syn::Field) -> Result<Self> {
        let ident = field.ident.as_ref().expect("only named fields come here");
        let own_name = ident.unraw().to_string();
        let doc = doc(&field.attrs);
        if doc.is_empty() {
            return Err(Error::new_spanned(
                field,
                format!("an input is explained to its user: put a doc comment (`///`) above `{own_name}`"),
            ));
        }
        let name = quote!(#own_name);
        let mut input = Self { ident, ty: &field.ty, name, doc, calls: Vec::new(), rest: false, grows: false };
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("input")) {
            attribute.parse_nested_meta(|meta| input.read_one(&meta))?;
        }
        Ok(input)
    }

    fn read_one(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let ty = self.ty;
        let call = match key(meta).as_str() {
            "name" => {
                self.name = value(meta)?;
                return Ok(());
            }
            "rest" => {
                self.rest = true;
                return Ok(());
            }
            "default" => with(meta, |it| quote!(.default_to(#it)))?,
            "range" => with(meta, |it| quote!(.range::<#ty>(#it)))?,
            "step" => with(meta, |it| quote!(.step::<#ty>(#it)))?,
            "round" => with(meta, |it| quote!(.round::<#ty>(#it)))?,
            "choices" => with(meta, |it| quote!(.choices::<#ty, _>(#it, services)))?,
            "kind" => with(meta, |it| quote!(.kind(#it)))?,
            "multiline" => quote!(.multiline::<#ty>()),
            "dynamic_prompts" => quote!(.dynamic_prompts::<#ty>()),
            "force_input" => quote!(.force_input()),
            "control_after_generate" => quote!(.control_after_generate()),
            "image_upload" => quote!(.image_upload()),
            "image_folder" => with(meta, |it| quote!(.image_folder(#it)))?,
            "display" => with(meta, |it| quote!(.display(#it)))?,
            "advanced" => quote!(.advanced()),
            "grows" => {
                self.grows = true;
                with(meta, |it| quote!(.grows #it))?
            }
            "with" => with(meta, |it| quote!(.with(&#it)))?,
            "matches" => with(meta, |it| quote!(.matches(#it)))?,
            other => {
                return Err(meta.error(format!(
                    "`{other}` is no attribute of an input; there are name, default, range, step, round, choices, kind, \
                     multiline, dynamic_prompts, force_input, control_after_generate, image_upload, image_folder, display, \
                     advanced, grows, with, matches, rest (a lazy input is a `Lazy<_>`, one that may be left out an \
                     `Option<_>`)"
                )));
            }
        };
        self.calls.push(call);
        Ok(())
    }

    /// Where the compiler points when the type will not do; the names inside are still the macro's.
    fn span(&self) -> Span {
        Span::call_site().located_at(self.ty.span())
    }

    /// The expression of its `Field`.
    fn declaration(&self) -> TokenStream {
        let Self { ty, name, doc, calls, .. } = self;
        quote_spanned! { self.span() =>
            ::paraflow_engine::Field::new::<#ty>(#name, #doc, services)#(#calls)*
        }
    }

    /// The struct's field, taken from the inputs.
    fn take(&self) -> TokenStream {
        let Self { ident, ty, name, .. } = self;
        if self.rest {
            return quote!(#ident: inputs.rest());
        }
        if self.grows {
            return quote_spanned!(self.span() => #ident: inputs.grown(#name)?);
        }
        quote_spanned!(self.span() => #ident: inputs.take::<#ty>(#name)?)
    }
}

fn key(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(Ident::to_string).unwrap_or_default()
}

fn with(meta: &ParseNestedMeta<'_>, call: impl Fn(TokenStream) -> TokenStream) -> Result<TokenStream> {
    value(meta).map(call)
}

/// The tokens after `=`, up to the next comma.
fn value(meta: &ParseNestedMeta<'_>) -> Result<TokenStream> {
    let input = meta.value()?;
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    if tokens.is_empty() { Err(input.error("a value is missing here")) } else { Ok(tokens) }
}

fn option(value: Option<&TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::std::option::Option::Some(#value)),
        None => quote!(::std::option::Option::None),
    }
}

/// The doc comment: lines of a paragraph joined, paragraphs apart.
fn doc(attributes: &[Attribute]) -> String {
    let mut doc = String::new();
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        let Expr::Lit(literal) = &pair.value else { continue };
        let (true, Lit::Str(line)) = (pair.path.is_ident("doc"), &literal.lit) else { continue };
        let line = line.value();
        match line.trim() {
            "" => doc.push_str("\n\n"),
            line if doc.is_empty() || doc.ends_with('\n') => doc.push_str(line),
            line => {
                doc.push(' ');
                doc.push_str(line);
            }
        }
    }
    doc.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler would say of the struct.
    fn complaint(item: &str) -> String {
        let item = syn::parse_str(item).expect("a struct");
        expand(&item).expect_err("a complaint").to_string()
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        assert_eq!(
            complaint(r#"#[node(category = "maths")] struct Add { }"#),
            "a node is explained to its user: put a doc comment (`///`) above `Add`"
        );
        assert_eq!(
            complaint("/// Adds.\nstruct Add;"),
            "a node has a place in the menu: write `#[node(category = \"…\")]` above it"
        );
        assert_eq!(
            complaint("/// Adds.\n#[node(category = \"maths\")] struct Add { a: u32 }"),
            "an input is explained to its user: put a doc comment (`///`) above `a`"
        );
        assert_eq!(
            complaint("/// Adds.\n#[node(category = \"maths\")] struct Add(u32);"),
            "the inputs of a node have names: use `{ name: Type }`"
        );
        assert_eq!(
            complaint("/// Adds.\n#[node(category = \"maths\")] enum Add {}"),
            "a node is a struct whose fields are its inputs"
        );
    }

    #[test]
    fn an_unknown_attribute_is_answered_with_the_known_ones() {
        let node = complaint("/// Adds.\n#[node(category = \"maths\", gpu)] struct Add;");
        assert!(node.starts_with("`gpu` is no attribute of a node; there are name, category,"), "{node}");
        let input =
            complaint("/// Adds.\n#[node(category = \"maths\")] struct Add {\n/// One.\n#[input(lazy)] a: u32 }");
        assert!(input.ends_with("(a lazy input is a `Lazy<_>`, one that may be left out an `Option<_>`)"), "{input}");
        let empty =
            complaint("/// Adds.\n#[node(category = \"maths\")] struct Add {\n/// One.\n#[input(range =)] a: u32 }");
        assert_eq!(empty, "unexpected end of input, a value is missing here");
    }

    #[test]
    fn paragraphs_of_a_doc_comment_stay_apart() {
        let item: DeriveInput = syn::parse_str("/// One\n/// line.\n///\n/// Another.\nstruct Add;").expect("a struct");
        assert_eq!(doc(&item.attrs), "One line.\n\nAnother.");
    }
}

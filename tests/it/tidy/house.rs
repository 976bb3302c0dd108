//! The source as a graph: which file uses which, names resolved to the file that defines them.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// How many re-exports a name may go through; more of them are a circle of `use`.
const MOST_STEPS: usize = 32;

/// Names from the top of the library, as `["deploy", "queue"]`.
type ModulePath = Vec<String>;

/// One module, its tests left out.
#[derive(Default)]
struct Module {
    file: String,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// Names that it has by `use`, private ones too, and where those lead.
    aliases: HashMap<String, ModulePath>,
    /// What it has all of.
    globs: Vec<ModulePath>,
}

/// Who uses whom: a file, the files that it uses, and the names by which it does.
pub type Arrows = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// All modules, and what each file names.
#[derive(Default)]
pub struct House {
    modules: HashMap<ModulePath, Module>,
    /// A file, the module in which a path stands, and the path.
    named: Vec<(String, ModulePath, ModulePath)>,
    /// A file, the module, and the type that it has an `impl` of its own for.
    implemented: Vec<(String, ModulePath, ModulePath)>,
}

impl House {
    /// Reads files, each a path as `src/deploy/queue.rs` with its text.
    pub fn of<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut house = Self::default();
        for (path, text) in files {
            let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{path}: {e}"));
            let module = module_of(path);
            house.read(path, &module, &parsed.items);
        }
        house
    }

    fn read(&mut self, file: &str, path: &ModulePath, items: &[Item]) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            if let Item::Use(used) = item {
                leaves(&used.tree, &mut Vec::new(), &mut |target, name| {
                    self.named.push((file.to_owned(), path.clone(), target.clone()));
                    match name {
                        Some(name) => drop(module.aliases.insert(name, target)),
                        None => module.globs.push(target),
                    }
                });
            } else if let Some(name) = name_of(item) {
                module.items.insert(name);
            }
        }
        self.modules.insert(path.clone(), module);
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(inner) => {
                    if let Some((_, items)) = &inner.content {
                        let mut below = path.clone();
                        below.push(inner.ident.to_string());
                        self.read(file, &below, items);
                    }
                }
                Item::Use(_) => {}
                item => self.read_item(file, path, item),
            }
        }
    }

    fn read_item(&mut self, file: &str, module: &ModulePath, item: &Item) {
        let mut names = Names::default();
        names.visit_item(item);
        let at = |path| (file.to_owned(), module.clone(), path);
        self.named.extend(names.0.into_iter().map(at));
        if let Item::Impl(block) = item
            && block.trait_.is_none()
            && let syn::Type::Path(of) = &*block.self_ty
        {
            self.implemented.push(at(words(&of.path)));
        }
    }

    /// The file that defines what a path in a module names; `None` for other crates' names.
    fn file_of(&self, module: &ModulePath, path: &[String]) -> Option<&str> {
        self.follow(module, path, 0).map(|module| self.modules[&module].file.as_str())
    }

    /// The module that defines it.
    fn follow(&self, module: &ModulePath, path: &[String], steps: usize) -> Option<ModulePath> {
        if steps > MOST_STEPS {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "better_paas" => self.below(&Vec::new(), rest, steps),
            "self" => self.below(module, rest, steps),
            "super" => {
                let above = module.split_last()?.1.to_vec();
                match rest.first().map(String::as_str) {
                    Some("super") => self.follow(&above, rest, steps + 1),
                    _ => self.below(&above, rest, steps),
                }
            }
            // A name alone, which is nothing of ours unless this module has it.
            _ => {
                let known = self.modules.get(module)?;
                let child = [module.as_slice(), std::slice::from_ref(first)].concat();
                let is_ours = known.items.contains(first)
                    || known.aliases.contains_key(first)
                    || self.modules.contains_key(&child);
                if is_ours {
                    self.below(module, path, steps)
                } else {
                    self.in_globs(module, path, steps)
                }
            }
        }
    }

    /// What the rest of a path names, below a module.
    fn below(&self, module: &ModulePath, rest: &[String], steps: usize) -> Option<ModulePath> {
        let known = self.modules.get(module)?;
        let Some((first, after)) = rest.split_first() else { return Some(module.clone()) };
        let child = [module.as_slice(), std::slice::from_ref(first)].concat();
        if self.modules.contains_key(&child) {
            // A function may be called as a module is; then the path ends with it.
            return self.below(&child, after, steps);
        }
        if known.items.contains(first) {
            return Some(module.clone());
        }
        if let Some(target) = known.aliases.get(first) {
            let path = [target.as_slice(), after].concat();
            // `use x::x` would be looked up in itself.
            if target.first() == Some(first) && !self.modules.contains_key(&child) {
                return None;
            }
            return self.follow(module, &path, steps + 1);
        }
        self.in_globs(module, rest, steps)
    }

    fn in_globs(&self, module: &ModulePath, path: &[String], steps: usize) -> Option<ModulePath> {
        self.modules.get(module)?.globs.iter().find_map(|glob| {
            let path = [glob.as_slice(), path].concat();
            self.follow(module, &path, steps + 1)
        })
    }

    /// Which file uses which.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (file, module, path) in &self.named {
            if let Some(used) = self.file_of(module, path).filter(|used| used != file) {
                let uses = arrows.entry(file.clone()).or_default();
                uses.entry(used.to_owned()).or_default().insert(path.join("::"));
            }
        }
        arrows
    }

    /// Types with an `impl` of their own in another file than theirs, or those below it: reading
    /// the type does not show what it does.
    pub fn scattered(&self) -> Vec<String> {
        let elsewhere = self.implemented.iter().filter_map(|(file, module, path)| {
            let home = self.file_of(module, path).filter(|home| home != file)?;
            // What a large type does may be split by what it is about, below it.
            if is_above(home, file) {
                return None;
            }
            Some(format!("{file} implements {}, which is in {home}", path.join("::")))
        });
        elsewhere.collect()
    }
}

/// Files that use one another in a circle, each circle with its arrows. A module and what
/// lies below it are one face: arrows between those two do not count.
pub fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        arrows.keys().map(|file| (file.as_str(), reached_from(arrows, file))).collect();
    let together = |a: &str, b: &str| {
        let reaches = |a: &str, b: &str| reached.get(a).is_some_and(|all| all.contains(b));
        reaches(a, b) && reaches(b, a)
    };
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for file in reached.keys().filter(|file| together(file, file)) {
        match circles.iter_mut().find(|c| c.iter().any(|other| together(file, other))) {
            Some(circle) => drop(circle.insert(file)),
            None => circles.push(BTreeSet::from([*file])),
        }
    }
    let arrow = |from: &str, to: &str| {
        let names = arrows.get(from)?.get(to)?;
        let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(format!("{from} -> {to} ({names})"))
    };
    let told = |circle: BTreeSet<&str>| {
        let pairs = circle.iter().flat_map(|from| circle.iter().map(move |to| (*from, *to)));
        pairs
            .filter(|(from, to)| !is_above(from, to) && !is_above(to, from))
            .filter_map(|(from, to)| arrow(from, to))
            .collect()
    };
    circles.into_iter().map(told).collect()
}

/// Where one gets from a file by arrows that count.
fn reached_from<'a>(arrows: &'a Arrows, from: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        for used in arrows.get(file).into_iter().flat_map(BTreeMap::keys) {
            let is_one_face = is_above(file, used) || is_above(used, file);
            if !is_one_face && seen.insert(used.as_str()) {
                open.push(used);
            }
        }
    }
    seen
}

/// Whether a file's module holds another's.
fn is_above(file: &str, other: &str) -> bool {
    let (above, below) = (module_of(file), module_of(other));
    below.len() > above.len() && below.starts_with(&above)
}

/// `src/deploy/queue.rs` is `deploy::queue`, and `src/lib.rs` is the top.
fn module_of(file: &str) -> ModulePath {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn words(path: &syn::Path) -> ModulePath {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// Each name that a `use` brings in, and the path that it stands for; no name for a `*`.
fn leaves(
    tree: &UseTree,
    above: &mut ModulePath,
    found: &mut dyn FnMut(ModulePath, Option<String>),
) {
    match tree {
        UseTree::Path(path) => {
            above.push(path.ident.to_string());
            leaves(&path.tree, above, found);
            above.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, above, found)),
        UseTree::Glob(_) => found(above.clone(), None),
        UseTree::Name(syn::UseName { ident }) if ident == "self" => {
            found(above.clone(), above.last().cloned());
        }
        UseTree::Name(syn::UseName { ident }) => {
            let name = ident.to_string();
            found([above.as_slice(), std::slice::from_ref(&name)].concat(), Some(name));
        }
        UseTree::Rename(renamed) => {
            let mut path = above.clone();
            if renamed.ident != "self" {
                path.push(renamed.ident.to_string());
            }
            found(path, Some(renamed.rename.to_string()));
        }
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

/// The paths that code names, in macros too.
#[derive(Default)]
struct Names(Vec<ModulePath>);

impl<'a> Visit<'a> for Names {
    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(words(path));
        visit::visit_path(self, path);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, used: &'a syn::ItemUse) {
        leaves(&used.tree, &mut Vec::new(), &mut |target, _| self.0.push(target));
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        visit::visit_macro(self, called);
        self.read(called.tokens.clone());
    }
}

impl Names {
    /// Names with `::` between them, wherever they stand.
    fn read(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (ModulePath::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Punct(sign) if sign.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 && !path.is_empty() {
                        self.0.push(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    if let TokenTree::Group(group) = other {
                        self.read(group.stream());
                    }
                    if !path.is_empty() {
                        self.0.push(std::mem::take(&mut path));
                    }
                    colons = 0;
                }
            }
        }
        if !path.is_empty() {
            self.0.push(path);
        }
    }
}

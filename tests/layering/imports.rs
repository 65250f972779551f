//! Finds the paths that Rust code names: `use` declarations and inline paths.

use std::collections::BTreeMap;

/// The code without comments, strings and characters.
pub fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let (mut out, mut i) = (String::new(), 0);
    let starts = |i: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(k, c)| bytes.get(i + k) == Some(&c))
    };
    while i < bytes.len() {
        let after_word = i > 0 && is_word(bytes[i - 1]);
        if starts(i, "//") {
            while i < bytes.len() && bytes[i] != '\n' {
                i += 1;
            }
        } else if starts(i, "/*") {
            let mut depth = 0;
            loop {
                if starts(i, "/*") {
                    (depth, i) = (depth + 1, i + 2);
                } else if starts(i, "*/") {
                    (depth, i) = (depth - 1, i + 2);
                } else {
                    i += 1;
                }
                if depth == 0 || i >= bytes.len() {
                    break;
                }
            }
        } else if let Some(end) = (!after_word).then(|| raw_string(&bytes, i)).flatten() {
            i = end;
            out.push(' ');
        } else if bytes[i] == '"' {
            i += 1;
            while i < bytes.len() && bytes[i] != '"' {
                i += if bytes[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
            out.push(' ');
        } else if let Some(end) = character(&bytes, i) {
            i = end;
            out.push(' ');
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The end of the raw string that begins at `i`; None if there is none.
fn raw_string(text: &[char], i: usize) -> Option<usize> {
    let mut at = i + usize::from(text.get(i) == Some(&'b'));
    if text.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = text[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if text.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < text.len() {
        let closed =
            text[at] == '"' && text[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closed {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// The end of the character literal that begins at `i`; None for a lifetime.
fn character(text: &[char], i: usize) -> Option<usize> {
    if text[i] != '\'' {
        return None;
    }
    if text.get(i + 1) == Some(&'\\') {
        let end = text[i + 3..].iter().position(|c| *c == '\'')?;
        return Some(i + 3 + end + 1);
    }
    (text.get(i + 2) == Some(&'\'')).then_some(i + 3)
}

/// The code without modules under `#[cfg(test)]`. `code` has no comments and strings.
pub fn without_tests(code: &str) -> String {
    let (mut out, mut rest) = (String::new(), code);
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let after = &after["#[cfg(test)]".len()..];
        if !after.trim_start().starts_with("mod ") {
            rest = after;
            continue;
        }
        let end = after.find(['{', ';']).unwrap_or(after.len());
        let mut depth = 0usize;
        let length = after[end..].char_indices().find_map(|(k, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0).then_some(k + 1)
        });
        rest = &after[(end + length.unwrap_or(0)).min(after.len())..];
    }
    out + rest
}

/// Splits code into words, `::` and single characters.
fn tokens(code: &str) -> Vec<String> {
    let (mut out, mut chars) = (Vec::new(), code.chars().peekable());
    while let Some(c) = chars.next() {
        if is_word(c) {
            let mut word = String::from(c);
            while let Some(next) = chars.next_if(|c| is_word(*c)) {
                word.push(next);
            }
            out.push(word);
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            out.push("::".into());
        } else if !c.is_whitespace() {
            out.push(c.into());
        }
    }
    out
}

/// A path that a `use` declaration imports, and its name in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    pub path: Vec<String>,
    pub name: String,
}

/// Parses a tree of `use` from `at` on, up to the `;`, `,` or `}` that ends it.
fn use_tree(tokens: &[String], at: &mut usize, prefix: &[String], out: &mut Vec<Import>) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(*at) {
        match token.as_str() {
            ";" | "," | "}" => break,
            "::" => *at += 1,
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|t| t != "}" && t != ";") {
                    use_tree(tokens, at, &path, out);
                    *at += usize::from(tokens.get(*at).is_some_and(|t| t == ","));
                }
                *at += 1;
                return;
            }
            "as" => {
                let name = tokens.get(*at + 1).cloned().unwrap_or_default();
                *at += 2;
                out.push(Import { path, name });
                return;
            }
            "self" if !path.is_empty() => *at += 1,
            _ => {
                path.push(token.clone());
                *at += 1;
            }
        }
    }
    if let Some(name) = path.last().cloned() {
        out.push(Import { path, name });
    }
}

/// The imports of `use` declarations, and the inline paths of at least two segments. `code` has no
/// comments and strings.
pub fn paths(code: &str) -> (Vec<Import>, Vec<Vec<String>>) {
    let (tokens, mut at) = (tokens(code), 0);
    let (mut imports, mut inline) = (Vec::new(), Vec::new());
    while at < tokens.len() {
        // `use<'a>` lists what a returned type captures.
        if tokens[at] == "use" && tokens.get(at + 1).is_none_or(|t| t != "<") {
            at += 1;
            use_tree(&tokens, &mut at, &[], &mut imports);
        } else if tokens[at].starts_with(is_word) {
            let mut path = vec![tokens[at].clone()];
            at += 1;
            while tokens.get(at).is_some_and(|t| t == "::")
                && tokens.get(at + 1).is_some_and(|t| t.starts_with(is_word))
            {
                path.push(tokens[at + 1].clone());
                at += 2;
            }
            if path.len() > 1 {
                inline.push(path);
            }
        } else {
            at += 1;
        }
    }
    (imports, inline)
}

/// Replaces the first segment of inline paths by the path that was imported under that name.
pub fn expanded(imports: &[Import], inline: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let known: BTreeMap<&str, &[String]> = imports
        .iter()
        .map(|i| (i.name.as_str(), i.path.as_slice()))
        .collect();
    let full = |path: Vec<String>| match known.get(path[0].as_str()) {
        Some(start) => [start, &path[1..]].concat(),
        None => path,
    };
    inline.into_iter().map(full).collect()
}

/// Regression: the parser did not end.
#[test]
fn captured_lifetimes_are_no_imports() {
    let (imports, _) = paths("fn f() -> impl Fn() + use<> { a; } use b::{c, d};");
    let names: Vec<&str> = imports.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["c", "d"]);
}

#[test]
fn comments_strings_and_characters_are_removed() {
    let text = "a // x\nb /* y /* z */ y */ c \"s\\\"s\" r#\"t\"t\"# '\"' '\\'' &'a d";
    let words: Vec<String> = tokens(&code(text));
    assert_eq!(words, ["a", "b", "c", "&", "'", "a", "d"]);
}

#[test]
fn modules_of_tests_are_removed() {
    let text = "a\n#[cfg(test)]\nmod tests { fn f() { b } }\nc\n#[cfg(test)]\nmod d;\n#[cfg(test)]\nfn e() {}";
    assert_eq!(
        tokens(&without_tests(text)),
        ["a", "c", "fn", "e", "(", ")", "{", "}"]
    );
}

#[test]
fn use_trees_are_expanded() {
    let (imports, inline) = paths(
        "pub use a::{b, c::{self, d as e}, f::*}; use super::g; fn h() { i::j(k) } use l as _;",
    );
    let imported: Vec<String> = imports
        .iter()
        .map(|i| format!("{} {}", i.path.join("::"), i.name))
        .collect();
    assert_eq!(
        imported,
        [
            "a::b b",
            "a::c c",
            "a::c::d e",
            "a::f::* *",
            "super::g g",
            "l _"
        ]
    );
    assert_eq!(inline, [["i", "j"]]);
    let longer = expanded(&imports, vec![vec!["e".into(), "x".into()]]);
    assert_eq!(longer, [["a", "c", "d", "x"]]);
}

//! A command line of `--name value`, `--name=value` and `--flag`, ended by `--` or by the first plain word.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// What a command line said. Names are without their dashes.
pub struct Options {
    values: BTreeMap<String, Vec<String>>,
    /// What follows the options.
    pub rest: Vec<String>,
}

impl Options {
    /// `valued` and `flags` list what there is; anything else is an error that names it.
    pub fn parse(arguments: &[String], valued: &[&str], flags: &[&str]) -> Result<Options, String> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let (name, inline) = match word.strip_prefix("--") {
                Some("") => break,
                Some(option) => match option.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_string())),
                    None => (option, None),
                },
                None => {
                    let rest = std::iter::once(word).chain(words).cloned().collect();
                    return Ok(Options { values, rest });
                }
            };
            let value = if valued.contains(&name) {
                inline.or_else(|| words.next().cloned()).ok_or_else(|| format!("--{name} needs a value"))?
            } else if !flags.contains(&name) {
                return Err(format!("there is no option --{name}"));
            } else if inline.is_some() {
                return Err(format!("--{name} takes no value"));
            } else {
                String::new()
            };
            values.entry(name.to_string()).or_default().push(value);
        }
        Ok(Options { values, rest: words.cloned().collect() })
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// All values given for a name, in order.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value given for a name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        let parse = |text: &str| text.parse().map_err(|problem| format!("--{name} {text}: {problem}"));
        self.text(name).map(parse).transpose()
    }

    pub fn required<T: FromStr>(&self, name: &str) -> Result<T, String>
    where
        T::Err: Display,
    {
        self.parsed(name)?.ok_or_else(|| format!("--{name} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn reads_options_and_rest() {
        let got = Options::parse(&words("--port 1 --port=2 --on -- --port 3"), &["port"], &["on"]).unwrap();
        assert_eq!((got.all("port"), got.has("on")), (&words("1 2")[..], true));
        assert_eq!(got.rest, words("--port 3"));
        assert_eq!(got.required::<u16>("port"), Ok(2));
        assert_eq!(Options::parse(&words("--on cmd --x"), &[], &["on"]).unwrap().rest, words("cmd --x"));
    }

    #[test]
    fn names_what_is_wrong() {
        let error = |text: &str| Options::parse(&words(text), &["port"], &["on"]).err().unwrap();
        assert_eq!(error("--nope"), "there is no option --nope");
        assert_eq!(error("--port"), "--port needs a value");
        assert_eq!(error("--on=1"), "--on takes no value");
        let bad = Options::parse(&words("--port 70000"), &["port"], &[]).unwrap();
        assert!(bad.required::<u16>("port").unwrap_err().starts_with("--port 70000: "));
        assert_eq!(bad.required::<u16>("other").unwrap_err(), "--other is missing");
    }
}

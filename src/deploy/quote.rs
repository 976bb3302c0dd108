//! Picks the lines of a failed build that say why: the last one is mostly a trailer.

use std::collections::VecDeque;

/// Lines that are looked at, the newest ones.
const KEPT: usize = 80;
/// Lines that are quoted.
const QUOTED: usize = 3;
/// Characters of all of them.
const LENGTH: usize = 400;

/// What tools write after the reason, or around it; apart by bars.
const TRAILERS: &str = "\
    a complete log of this run|info visit|command failed with exit code|\
    originates from a subprocess|hint:|node.js v|npm error path|npm error command|\
    npm error errno|npm error code elifecycle|npm error lifecycle script|npm error workspace|\
    npm error location|elifecycle|[notice]|to run scripts|build failed|\
    for more information about this error|have detailed explanations|could not compile|\
    subprocess-exited|[end of output]|note: |note this|run `npm audit|npm fund|\
    err_pnpm_recursive|exit code: 1|exit status 1|0 errors|error: script \"|\
    did not complete successfully";

/// What a line with a reason holds.
const REASONS: &str = "\
    error|err!|fatal|cannot|can't|could not|couldn't|not found|no such file|no module named|\
    undefined:|exception|denied|refused|unsatisfiable|because |unsupported|unexpected";

/// The newest lines of a build.
#[derive(Default)]
pub struct Quote {
    lines: VecDeque<String>,
}

impl Quote {
    /// Takes a line in which secrets are hidden already: half of one would not be recognised.
    pub fn push(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line.chars().take(LENGTH).collect());
    }

    /// The lines that say why, as the end of a sentence; the last one when none does.
    pub fn sentence(&self) -> String {
        let lines = || self.lines.iter().map(String::as_str).filter(|line| !is_trailer(line));
        let mut reasons: Vec<&str> = lines().filter(|line| is_reason(line)).collect();
        reasons.dedup();
        reasons.truncate(QUOTED);
        if !reasons.is_empty() {
            let cut: String = reasons.join(" / ").chars().take(LENGTH).collect();
            return format!("; it says: {cut}");
        }
        let last = lines().next_back().or(self.lines.back().map(String::as_str));
        last.map_or(String::new(), |last| format!("; its last line: {last}"))
    }
}

fn is_trailer(line: &str) -> bool {
    let low = line.to_ascii_lowercase();
    // A frame of a stack; a code without its sentence; a rule, an arrow under a line of source.
    let frame = (low.starts_with("at ") || low.starts_with("from /")) && low.contains(':');
    let code = low.starts_with("npm err") && low.split_whitespace().count() < 5;
    frame
        || code
        || !low.bytes().any(|b| b.is_ascii_alphanumeric())
        || TRAILERS.split('|').any(|text| low.contains(text))
}

fn is_reason(line: &str) -> bool {
    let low = line.to_ascii_lowercase();
    // Go's compiler: `./main.go:7:2: ...`
    let place = line
        .split_once(".go:")
        .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    place || !low.contains("warn") && REASONS.split('|').any(|text| low.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output: &str) -> String {
        let mut quote = Quote::default();
        output.lines().for_each(|line| quote.push(line));
        quote.sentence()
    }

    #[test]
    fn the_error_of_each_tool_is_quoted_and_not_what_it_writes_around_it() {
        let node = "[eval]:1\nrequire('./nothing')\n^\n\nError: Cannot find module './nothing'\n    at \
                    makeContextifyScript (node:internal/vm:185:14)\n    at node:internal/main/eval_string:51:3\n\n\
                    Node.js v20.20.2\n";
        for (output, quoted) in [
            (
                "npm error code E404\nnpm error 404 Not Found - GET https://registry.example.com/nothing\nnpm error 404\n\
                 npm error 404  The requested resource 'nothing@1' could not be found.\nnpm error A complete log of this run \
                 can be found in: /cache/npm/_logs/x-debug-0.log\n",
                "npm error 404 Not Found - GET https://registry.example.com/nothing / npm error 404  The requested resource \
                 'nothing@1' could not be found.",
            ),
            (
                &format!(
                    "{node}error Command failed with exit code 1.\ninfo Visit https://docs.example.com/run for more.\n"
                ),
                "Error: Cannot find module './nothing'",
            ),
            (
                &format!("> x@ build /app\n{node} ELIFECYCLE  Command failed with exit code 1.\n"),
                "Error: Cannot find module './nothing'",
            ),
            (
                "ERROR: Could not find a version that satisfies the requirement nothing (from versions: none)\n\
                 ERROR: No matching distribution found for nothing\n\n[notice] A new release of pip is available\n",
                "ERROR: Could not find a version that satisfies the requirement nothing (from versions: none) / ERROR: No \
                 matching distribution found for nothing",
            ),
            (
                "error: No solution found when resolving dependencies\n  cause: Because nothing was not found in the package \
                 registry and you require nothing, we can conclude that your requirements are unsatisfiable.\n",
                "error: No solution found when resolving dependencies / cause: Because nothing was not found in the package \
                 registry and you require nothing, we can conclude that your requirements are unsatisfiable.",
            ),
            (
                "a.ts(1,7): error TS2322: Type 'string' is not assignable to type 'number'.\na.ts(2,1): error TS2304: Cannot \
                 find name 'foo'.\nnpm error Lifecycle script `build` failed with error:\nnpm error code 2\n",
                "a.ts(1,7): error TS2322: Type 'string' is not assignable to type 'number'. / a.ts(2,1): error TS2304: Cannot \
                 find name 'foo'.",
            ),
            (
                "   Compiling x v0.1.0\nwarning: unused variable\nerror[E0308]: mismatched types\n --> src/main.rs:1:26\n\n\
                 For more information about this error, try `rustc --explain E0308`.\nerror: could not compile `x` (bin \"x\") due \
                 to 1 previous error\n",
                "error[E0308]: mismatched types",
            ),
            ("# x\n./main.go:3:15: undefined: foo\n", "./main.go:3:15: undefined: foo"),
        ] {
            assert_eq!(of(output), format!("; it says: {quoted}"));
        }
        assert_eq!(
            of("step 1\nfinished with nothing\n\n---\n"),
            "; its last line: finished with nothing"
        );
        assert_eq!(of(""), "");
    }

    #[test]
    fn frames_of_a_stack_are_no_reason() {
        let ruby = "the layout is not there\n\tfrom /usr/lib/ruby/site.rb:204:in `render'\n";
        assert_eq!(of(ruby), "; its last line: the layout is not there");
    }

    #[test]
    fn endless_output_is_bounded() {
        let mut quote = Quote::default();
        (0..100_000).for_each(|n| quote.push(&format!("error {n} {}", "x".repeat(10_000))));
        assert!(quote.lines.len() == KEPT && quote.sentence().len() < 2 * LENGTH);
    }
}

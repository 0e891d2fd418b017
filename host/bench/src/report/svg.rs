//! A bar chart as SVG text. Knows nothing of what its numbers mean.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 230.0;
const VALUES: f64 = 90.0;
const BAR: f64 = 18.0;
const GAP: f64 = 4.0;
const GROUP_GAP: f64 = 14.0;

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// Which of the series it belongs to; chooses its colour.
    pub(super) series: usize,
    /// Its length, in units of the chart; 0 or more.
    pub(super) value: f64,
    /// A mark behind its end, as for a higher percentile; `None` for no mark.
    pub(super) mark: Option<f64>,
    /// What stands behind it.
    pub(super) note: String,
}

/// Bars with a common name.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
}

/// Writes a chart in which the longest bar or mark is as long as there is room.
pub(super) fn bars(groups: &[Group]) -> String {
    let all = groups.iter().flat_map(|group| &group.bars);
    let most = all.map(|bar| bar.value.max(bar.mark.unwrap_or(0.0))).fold(0.0, f64::max);
    let scale = if most > 0.0 { (WIDTH - LABELS - VALUES) / most } else { 0.0 };
    let (mut body, mut y) = (String::new(), GROUP_GAP / 2.0);
    for group in groups {
        let height = group.bars.len() as f64 * (BAR + GAP) - GAP;
        let middle = y + height / 2.0 + 4.0;
        let name = escape(&group.name);
        put(
            &mut body,
            format_args!(
                "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>\n",
                LABELS - 10.0
            ),
        );
        for bar in &group.bars {
            let length = bar.value * scale;
            put(
                &mut body,
                format_args!(
                    "<rect class=\"s{}\" x=\"{LABELS:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" \
                 height=\"{BAR:.1}\"/>\n",
                    bar.series
                ),
            );
            let mut end = length;
            if let Some(mark) = bar.mark {
                end = end.max(mark * scale);
                let (x, base) = (LABELS + mark * scale, y + BAR);
                put(
                    &mut body,
                    format_args!(
                        "<path class=\"mark\" d=\"M{:.1} {:.1}H{x:.1}M{x:.1} {y:.1}V{base:.1}\"/>\n",
                        LABELS + length,
                        y + BAR / 2.0
                    ),
                );
            }
            put(
                &mut body,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                    LABELS + end + 6.0,
                    y + BAR / 2.0 + 4.0,
                    escape(&bar.note)
                ),
            );
            y += BAR + GAP;
        }
        y += GROUP_GAP - GAP;
    }
    format!("<svg viewBox=\"0 0 {WIDTH:.0} {y:.0}\" role=\"img\">\n{body}</svg>\n")
}

fn put(body: &mut String, text: std::fmt::Arguments<'_>) {
    body.write_fmt(text).expect("a String takes everything");
}

/// Text as it may stand in SVG and HTML.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

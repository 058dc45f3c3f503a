//! Reports: functions of the result alone. Nothing is measured or judged here, only put into words;
//! all of these come from the catalogue.

mod answer;
mod arrival;
mod chart;
mod claim;
mod database;
mod forecast;
mod html;
mod junit;
mod load;
mod markdown;
mod quantity;
mod reason;
mod section;
mod sizing;
mod terminal;
mod tier;
mod trace;
mod usage;
mod view;
mod watch;
mod words;

pub use forecast::forecast;
pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use reason::sentence;
pub use terminal::terminal;

//! Reports: functions of the result alone. Nothing is measured or judged here, only put into words;
//! all of these come from the catalogue.

mod answer;
mod chart;
mod forecast;
mod html;
mod junit;
mod markdown;
mod reason;
mod section;
mod terminal;
mod tier;
mod trace;
mod view;
mod words;

pub use forecast::forecast;
pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use reason::sentence;
pub use terminal::terminal;

//! What holds for the whole: the saga over its real handlers, and the shop from outside.

mod state_space;

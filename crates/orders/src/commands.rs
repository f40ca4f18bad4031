//! The commands: placing and cancelling an order.

use contracts::orders::OrderCreated;
use contracts::{Line, Money, OrderId, UserId};
use millstream::{Command, CommandHandler, Fault, Id, Keys, Timer, Unit};
use serde::Serialize;

use crate::Settings;
use crate::facts::{Deadline, stage};
use crate::metrics::ORDERS;
use crate::order::{Fact, Order, Status};

/// Places a validated order. The command's id becomes the order's id.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceOrder {
    /// The customer.
    pub user_id: UserId,
    /// The order lines; each product once.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Money,
}

impl CommandHandler<PlaceOrder> for Settings {
    type Reply = Order;

    fn touches(&self, _: &PlaceOrder, id: Id) -> Keys {
        Keys::one::<Order>(id.to_string())
    }

    fn handle(&self, command: &PlaceOrder, id: Id, unit: &mut Unit<'_>) -> Result<Order, Fault> {
        let order = Order {
            id: id.into(),
            user_id: command.user_id.clone(),
            lines: command.lines.clone(),
            total: command.total,
            currency: self.currency,
            status: Status::Pending,
            reason: None,
            captured_late: false,
            created_at: unit.now(),
            ended_at: None,
        };
        // Read so that the commit fails, rather than overwrites, if the id is taken.
        if unit.get::<Order>(&order.id)?.is_some() {
            return Err(Fault::Retry(format!("the id {id} is taken: retry")));
        }
        unit.emit(&OrderCreated {
            order_id: order.id.clone(),
            user_id: order.user_id.clone(),
            lines: order.lines.clone(),
            total: order.total,
            currency: order.currency,
        });
        unit.count(&ORDERS, &["accepted", "none"]);
        order.count_value("accepted", unit);
        unit.put_with_wake(order.clone(), Deadline::KIND, unit.now() + self.deadline);
        Ok(order)
    }
}

/// Cancels an order that is not finished.
#[derive(Clone, Debug, Serialize)]
pub struct CancelOrder {
    /// The order.
    pub id: OrderId,
}

impl Command for CancelOrder {
    type Reply = Order;

    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Order>(&self.id)
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<Order, Fault> {
        let id = &self.id;
        let mut order = unit.get::<Order>(id)?.ok_or_else(|| Fault::not_found(format!("no order with id {id}")))?;
        if order.status == Status::Confirmed {
            return Err(Fault::conflict(format!(
                "order {id} is CONFIRMED: only an order that is PENDING or RESERVED can be cancelled"
            )));
        }
        let change = order.learn(Fact::CancelAsked, unit);
        stage(order.clone(), change, unit);
        Ok(order)
    }
}

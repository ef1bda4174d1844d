fn main() -> anyhow::Result<()> {
    account::main::<onceonly_rabbitmq::RabbitMq>()
}

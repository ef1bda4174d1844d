fn main() -> anyhow::Result<()> {
    account::main::<onceonly_postgres_queue::PostgresQueue>()
}

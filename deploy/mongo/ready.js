// Healthy means: this is the writable primary of the set, and each service has its user. Whatever is missing is created; the script
// is idempotent.
const env = process.env;
try {
  if (!db.hello().setName) {
    rs.initiate({ _id: "rs0", members: [{ _id: 0, host: env.MONGO_MEMBER }] });
  }
} catch (error) {
  if (error.codeName !== "AlreadyInitialized") throw error;
}
if (!db.hello().isWritablePrimary) {
  print("not the primary yet");
  quit(1);
}
for (const service of env.MONGO_SERVICES.split(" ")) {
  const pwd = env[`MONGO_${service.toUpperCase()}_PASSWORD`];
  // Access to its own database only.
  const roles = [{ role: "readWrite", db: service }];
  const its = db.getSiblingDB(service);
  const user = its.getUser(service, { showCredentials: false });
  if (!user) its.createUser({ user: service, pwd, roles });
}
print("primary");

//! What an endpoint's next packet will touch. With thousands of calls nothing of a call is left in the
//! processor's caches when its next packet comes, and the misses cost more than all computing; a
//! shell that knows which packets come next can have the memory fetched meanwhile. Nothing here
//! changes anything, and a wrong guess only costs the fetch.

use super::engine::Session;
use super::input::EndpointKey;

impl Session {
    /// The lists that lead to the endpoints, as address and length. Reads only the session itself.
    pub fn visit_lists(&self, visit: impl Fn(*const u8, usize)) {
        self.endpoints.visit_list(&visit);
        self.plan.visit_lists(&visit);
    }

    /// The endpoint and those that hear it, as address and length. Reads only the lists.
    pub fn visit_endpoints(&self, source: EndpointKey, visit: impl Fn(*const u8, usize)) {
        let heard_by = self.plan.routes_from(source).first();
        let keys = [Some(source), heard_by.map(|route| route.destination)];
        for endpoint in keys
            .into_iter()
            .flatten()
            .filter_map(|k| self.endpoints.get(k))
        {
            visit(std::ptr::from_ref(endpoint).cast(), size_of_val(endpoint));
        }
    }
}

//! The routes of the web server, each with what it requires: [`Routes`] is the only way to add one.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{MethodFilter, MethodRouter, get, on};

use crate::serve::access::authenticate::{authenticate, require};
use crate::serve::access::base_path::BasePath;
use crate::serve::access::control::AccessControl;
use crate::serve::access::requirement::Requirement;
use crate::serve::conditional::conditional;
use crate::serve::headers::add_headers;
use crate::serve::host::require_host;
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::service::Service;

/// A route: method, path below the base path, requirement.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method; GET includes HEAD.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// What the route requires.
    pub requirement: Requirement,
    /// What the OpenAPI document says about it; absent for pages.
    pub operation: Option<Operation>,
}

/// The table of routes under construction.
#[derive(Default)]
pub struct Routes(Vec<(Route, MethodRouter<Service>)>);

impl Routes {
    /// Adds a GET route.
    pub fn get<H, T>(self, path: &'static str, requirement: Requirement, handler: H) -> Self
    where
        H: Handler<T, Service>,
        T: 'static,
    {
        self.add(Method::GET, path, requirement, handler)
    }

    /// Adds a POST route.
    pub fn post<H, T>(self, path: &'static str, requirement: Requirement, handler: H) -> Self
    where
        H: Handler<T, Service>,
        T: 'static,
    {
        self.add(Method::POST, path, requirement, handler)
    }

    /// Adds a PUT route.
    pub fn put<H, T>(self, path: &'static str, requirement: Requirement, handler: H) -> Self
    where
        H: Handler<T, Service>,
        T: 'static,
    {
        self.add(Method::PUT, path, requirement, handler)
    }

    /// Adds a DELETE route.
    pub fn delete<H, T>(self, path: &'static str, requirement: Requirement, handler: H) -> Self
    where
        H: Handler<T, Service>,
        T: 'static,
    {
        self.add(Method::DELETE, path, requirement, handler)
    }

    fn add<H, T>(
        mut self,
        method: Method,
        path: &'static str,
        requirement: Requirement,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Service>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("one of the four above");
        let routed =
            on(filter, handler).route_layer(middleware::from_fn_with_state(requirement, require));
        let route = Route {
            method,
            path,
            requirement,
            operation: None,
        };
        self.0.push((route, routed));
        self
    }

    /// States what the OpenAPI document says about the route that was added last.
    pub fn documented(mut self, operation: Operation) -> Self {
        if let Some((route, _)) = self.0.last_mut() {
            route.operation = Some(operation);
        }
        self
    }

    /// Adds the routes of another table.
    pub fn merge(mut self, other: Routes) -> Self {
        self.0.extend(other.0);
        self
    }

    /// All routes.
    pub fn table(&self) -> Vec<Route> {
        self.0.iter().map(|(route, _)| route.clone()).collect()
    }

    /// The router, below the base path. Routes that require nothing are also at their own path,
    /// because health checks do not pass the proxy.
    pub fn into_router(self, base: &BasePath, access: AccessControl) -> Router<Service> {
        let mut router = Router::new();
        let below = base.as_str();
        for (route, routed) in self.0 {
            if !below.is_empty() && route.requirement == Requirement::Nothing {
                router = router.route(route.path, routed.clone());
            }
            router = router.route(&format!("{below}{}", route.path), routed);
        }
        if !below.is_empty() {
            // The addresses in the page are relative to a path with a slash at its end.
            let page = base.page();
            router = router.route(below, get(async move || Redirect::to(&page)));
        }
        router
            .fallback(async |request: Request| {
                let path = request.uri().path().chars().take(200).collect::<String>();
                Problem::not_found(format!("there is nothing at {path}"))
            })
            .method_not_allowed_fallback(async |request: Request| {
                let detail = format!("this address does not answer to {}", request.method());
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
            })
            .layer(middleware::from_fn(conditional))
            .layer(middleware::from_fn_with_state(access, authenticate))
            .layer(middleware::from_fn(require_host))
            .layer(middleware::from_fn(add_headers))
    }
}

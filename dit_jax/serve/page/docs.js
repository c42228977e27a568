// The description of the server, by Swagger UI.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true });

// Generated from openapi.yaml by devkit/client/types.mjs.

export interface paths {
    "/api/generateImage": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Draw an image
         * @description Draws one image and stores it. An image takes 10 to 200 seconds. Four ways to wait are the same generation, with
         *     the same quota, budget and safety:
         *
         *     | way | header | answer |
         *     | --- | --- | --- |
         *     | plain | | 200 with the image; 202 with a job after `SYNC_LIMIT_SECONDS` |
         *     | events | `Accept: text/event-stream` | 200 with server-sent events |
         *     | job | `Prefer: respond-async` | 202 with a job |
         *     | wait | `Prefer: wait=20` | 200 with the image if it is there in time, else 202 with a job |
         *
         *     A caller that disconnects loses nothing: the image is stored, and the job's address answers for 24 hours.
         */
        post: operations["generateImage"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/generateImage/jobs/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of a job. `statusUrl` is the whole path.
                 * @example 2026-11-26-22adfbdb8610f8e2ba7da4bba24c76cbb53fee45b43ff67d40869039fc063b12
                 */
                id: components["parameters"]["JobId"];
            };
            cookie?: never;
        };
        /**
         * Read a job, or the rest of its events
         * @description The state of a generation, for 24 hours. Every generation has such an address: that of a plain request and of an
         *     event stream, too. The address is a secret: everybody who knows it can read and cancel the job.
         *
         *     With `Accept: text/event-stream`, the rest of the events. A page that lost its connection reads on here, and
         *     nothing is drawn a second time.
         */
        get: operations["getJob"];
        put?: never;
        post?: never;
        /**
         * Cancel a job
         * @description Cancels a job that has not begun. Nothing is drawn, and quota and budget get back what it reserved.
         */
        delete: operations["cancelJob"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/getImages": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List the images
         * @description Newest first. Without `limit` every image up to `LISTING_LIMIT`, with its link and its name. With `limit` a page
         *     of images, with more of each. Follow `next` until a page has none; a page may be shorter than `limit`. A cursor
         *     stays good, and an image that is added later is never in a later page. There is no total.
         *
         *     All links of a window of `SAS_MINUTES` are the same, so browsers keep their caches, and each lives at least one
         *     more window.
         */
        get: operations["listImages"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/images/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        /**
         * Read an image's details
         * @description The whole prompt, the model, the options and the file of an image, and links to it.
         */
        get: operations["getImage"];
        put?: never;
        post?: never;
        /**
         * Delete an image
         * @description Only the creator of an image may delete it. The image's links and its place in the gallery end at once. It can be
         *     restored until `restorableUntil`.
         */
        delete: operations["deleteImage"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/images/{id}/restore": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Restore a deleted image
         * @description Brings the image back, with its name and its links. Only its creator may.
         */
        post: operations["restoreImage"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/manage/images/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Delete the image of anybody
         * @description As deleteImage, without a token.
         */
        delete: operations["deleteAnyImage"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/manage/images/{id}/restore": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Restore the deleted image of anybody
         * @description As restoreImage, without a token.
         */
        post: operations["restoreAnyImage"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/getChatGPTSuggestion": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Suggest a prompt
         * @description An idea for a prompt, as text. Built-in ideas replace the text model's when it is slow or not paid.
         */
        get: operations["suggestPrompt"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/styles": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List the style presets
         * @description The presets change only with a release. Clients may keep the answer for an hour.
         */
        get: operations["listStyles"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/options": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read what a front end can offer
         * @description The sizes, qualities, formats and styles of the configured model that `MAX_IMAGE_USD` allows, and what the app has
         *     besides. A model may take more. Clients may keep the answer for 5 minutes.
         */
        get: operations["getOptions"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/quota": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read what the caller has used today
         * @description A caller is the signed-in user, the user that a front end's server names, or a client address.
         */
        get: operations["getQuota"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/usage": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read what the app has drawn and spent
         * @description By day and model, newest day first. As CSV where `Accept` names `text/csv` before any JSON.
         */
        get: operations["getUsage"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/generateSASToken": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a token for the container
         * @description A shared access signature, good for `SAS_MINUTES`, with the rights of `SAS_PERMISSIONS`. As text it is the query
         *     string without `?`.
         */
        get: operations["getContainerToken"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/health": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read whether the app works
         * @description `ok`, or `degraded` if storage, the provider, the model or the app's managed identity fails, or images wait for storage.
         */
        get: operations["getHealth"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/status": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read the operator's view
         * @description Why the app is `degraded`, and when the provider shuts the models down.
         */
        get: operations["getStatus"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read this document as JSON
         * @description OpenAPI 3.2.
         */
        get: operations["getOpenApi"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/openapi-3.1.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read this document as OpenAPI 3.1
         * @description For tools that do not read OpenAPI 3.2. It differs in one point: the schema of an event stream is that of one
         *     event.
         */
        get: operations["getOpenApi31"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/openapi.yaml": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read this document as YAML
         * @description OpenAPI 3.2, with comments.
         */
        get: operations["getOpenApiYaml"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Open the page
         * @description A page that draws and shows the gallery. With `WEB_PAGE=off` there is none.
         */
        get: operations["getPage"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        /**
         * Look whether the page is there
         * @description As getPage, without a body.
         */
        head: operations["checkPage"];
        patch?: never;
        trace?: never;
    };
    "/{page}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The name of a page, such as `docs`, or of a file. A file's name has a version, so browsers keep the file for
                 *     ever.
                 * @example docs
                 */
                page: string;
            };
            cookie?: never;
        };
        /**
         * Open another page, or a page's file
         * @description The page `docs` shows this document.
         */
        get: operations["getPageFile"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        /**
         * Look whether a page or a file is there
         * @description As getPageFile, without a body.
         */
        head: operations["checkPageFile"];
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        GenerateImageRequest: {
            /** @description What to draw. Not blank, without control characters, and of at most `maxPromptCharacters` (getOptions). */
            prompt: string;
            /**
             * @description `1024x1024` (the default), `1024x1792` and `1792x1024` work with every model. A model may take other sizes.
             * @example 1024x1024
             * @example 1024x1792
             * @example 1792x1024
             * @example auto
             */
            size?: string | null;
            /**
             * @description `standard` and `hd` work with every model. A model may take others.
             * @enum {string|null}
             */
            quality?: "standard" | "hd" | "auto" | "low" | "medium" | "high" | "xhigh" | "max" | null;
            /** @description A style preset, in any case, or `vivid` or `natural`, which only dall-e knows. */
            style?: components["schemas"]["StyleName"] | ("vivid" | "natural" | null);
            /** @description How to enhance the prompt. With a style preset `style` is the default. */
            enhance?: components["schemas"]["Enhancement"] | null;
            /**
             * @description Where the model has backgrounds. A transparent one needs `png` or `webp`.
             * @enum {string|null}
             */
            background?: "auto" | "opaque" | "transparent" | null;
            /**
             * @description The format of the image, where the model has formats. The default is `png`.
             * @enum {string|null}
             */
            outputFormat?: "png" | "jpeg" | "webp" | null;
            /** @description Previews in an event stream, 2 by default. A provider that does not stream gives none. */
            partialImages?: number | null;
        };
        /** @description An image that was drawn and stored. */
        GeneratedImage: {
            id: components["schemas"]["ImageId"];
            name: components["schemas"]["ImageName"];
            url: components["schemas"]["SignedUrl"];
            /** @description As `url`, but browsers save the image as a file. */
            downloadUrl: components["schemas"]["SignedUrl"];
            /** @description Deletes and restores the image, in the header `X-Delete-Token`. Keep it secret. */
            deleteToken: string;
            /** @description The prompt as the user typed it. */
            prompt: string;
            /** @description The prompt as the provider got it. */
            finalPrompt: string;
            /** @description The prompt as the provider changed it. */
            revisedPrompt: string | null;
            enhancement: components["schemas"]["Enhancement"];
            /** @description The model that drew the image. */
            model: string;
            /** @description The size as the provider names it, mostly `WIDTHxHEIGHT`. */
            size: string;
            /** @description The quality as the provider names it. */
            quality: string;
            contentType: components["schemas"]["ImageContentType"];
            /** @description The size of the file. */
            bytes: number;
            createdAt: components["schemas"]["Time"];
        };
        /** @description An image that is drawn and on disk. It is stored, and listed under its name, when storage is back. */
        ImageStoredLater: {
            /** @constant */
            code: "stored_later";
            name: components["schemas"]["ImageName"];
            /** @description A sentence for the user. */
            detail: string;
        };
        /** @description A generation that goes on. `statusUrl` answers for 24 hours. */
        AcceptedJob: {
            id: components["schemas"]["JobId"];
            status: components["schemas"]["Phase"];
            statusUrl: components["schemas"]["JobPath"];
            estimateSeconds: components["schemas"]["EstimateSeconds"];
        };
        /** @description The state of a generation. */
        Job: {
            id: components["schemas"]["JobId"];
            status: components["schemas"]["JobStatus"];
            statusUrl: components["schemas"]["JobPath"];
            createdAt: components["schemas"]["Time"];
            elapsedSeconds: number;
            estimateSeconds: components["schemas"]["EstimateSeconds"];
            /** @description With the status `done`. */
            result?: components["schemas"]["GeneratedImage"] | components["schemas"]["ImageStoredLater"];
            /** @description With the status `failed`. */
            problem?: components["schemas"]["Problem"];
        };
        /**
         * @description `queued`: the job waits for a delivery of its message. `drawing`, `saving`: an instance works on it. `done`,
         *     `failed`, `cancelled`: it has ended.
         * @enum {string}
         */
        JobStatus: "queued" | "drawing" | "saving" | "done" | "failed" | "cancelled";
        /**
         * @description What a generation does that has not ended.
         * @enum {string}
         */
        Phase: "queued" | "drawing" | "saving";
        /** @description The events of a generation. The last one is `image` or `error`, or the stream goes on at `statusUrl`. */
        GenerationEvents: components["schemas"]["GenerationEvent"][];
        /**
         * @description One server-sent event. Its data is JSON. A comment every 10 seconds keeps the connection open. A stream ends after
         *     9 minutes.
         */
        GenerationEvent: {
            /** @constant */
            event: "progress";
            data: string;
        } | {
            /** @constant */
            event: "accepted";
            data: string;
        } | {
            /** @constant */
            event: "preview";
            data: string;
        } | {
            /** @constant */
            event: "image";
            data: string;
        } | {
            /** @constant */
            event: "error";
            data: string;
        };
        /** @description The data of the event `progress`. */
        ProgressEvent: {
            phase: components["schemas"]["Phase"];
            elapsedSeconds: number;
        };
        /** @description The data of the event `accepted`. */
        AcceptedEvent: {
            id: components["schemas"]["JobId"];
            statusUrl: components["schemas"]["JobPath"];
            /** @description The caption of the image. */
            name: string;
            /** @description Images that are left today. */
            quotaRemaining: number | null;
            estimateSeconds: components["schemas"]["EstimateSeconds"];
        };
        /** @description The data of the event `preview`. */
        PreviewEvent: {
            index: number;
            /** @description A data URL of the unfinished image, at most 128 KiB. */
            image: string;
        };
        /** @description All images, newest first. */
        ImageList: {
            imageUrls: components["schemas"]["ImageLink"][];
        };
        /** @description A page of images, newest first. */
        ImagePage: {
            imageUrls: components["schemas"]["ListedImage"][];
            /**
             * Format: uri-reference
             * @description The path of the next page. The last page has none.
             */
            next?: string;
        };
        ImageLink: {
            url: components["schemas"]["SignedUrl"];
            name: components["schemas"]["ImageName"];
        };
        /** @description An image of a page. What is unknown is absent. */
        ListedImage: {
            id: components["schemas"]["ImageId"];
            url: components["schemas"]["SignedUrl"];
            /** @description As `url`, but browsers save the image as a file. */
            downloadUrl: components["schemas"]["SignedUrl"];
            name: components["schemas"]["ImageName"];
            createdAt: components["schemas"]["Time"];
            width?: number;
            height?: number;
            /** @description A JPEG of at most 512 pixels. It follows the image by a moment; a transparent image has none. */
            thumbnailUrl?: components["schemas"]["SignedUrl"];
            thumbnailWidth?: number;
            thumbnailHeight?: number;
            /** @description A ThumbHash in base64. */
            placeholder?: string;
            /** @description The beginning of the prompt. */
            prompt?: string;
        };
        /** @description An image with all that is public of it. What is unknown is absent. */
        ImageDetails: {
            id: components["schemas"]["ImageId"];
            url: components["schemas"]["SignedUrl"];
            /** @description As `url`, but browsers save the image as a file. */
            downloadUrl: components["schemas"]["SignedUrl"];
            name: components["schemas"]["ImageName"];
            createdAt: components["schemas"]["Time"];
            width?: number;
            height?: number;
            /** @description A JPEG of at most 512 pixels. It follows the image by a moment; a transparent image has none. */
            thumbnailUrl?: components["schemas"]["SignedUrl"];
            thumbnailWidth?: number;
            thumbnailHeight?: number;
            /** @description A ThumbHash in base64. */
            placeholder?: string;
            /** @description The prompt as the user typed it. */
            prompt?: string;
            /** @description The prompt as the provider got it. */
            finalPrompt?: string;
            /** @description The prompt as the provider changed it. */
            revisedPrompt?: string;
            enhancement: components["schemas"]["Enhancement"];
            model?: string;
            size?: string;
            quality?: string;
            contentType: components["schemas"]["ImageContentType"];
            /** @description The size of the file. */
            bytes: number;
        };
        DeletedImage: {
            id: components["schemas"]["ImageId"];
            restorableUntil: components["schemas"]["Time"];
        };
        StyleList: {
            styles: components["schemas"]["Style"][];
        };
        /** @description A style preset. */
        Style: {
            name: components["schemas"]["StyleName"];
            /** @description What a front end shows. */
            title: string;
            /** @description What is appended to the prompt. */
            keywords: string;
        };
        /** @enum {string} */
        StyleName: "cinematic" | "oil-painting" | "watercolor" | "photo-realistic" | "abstract" | "modern" | "black-and-white" | "anime" | "pixel-art" | "isometric" | "line-art" | "low-poly" | "fantasy";
        /**
         * @description `off` sends the prompt as typed, `style` appends the keywords of a style preset, `rewrite` has the text model
         *     expand it. An image's enhancement is the one that was applied.
         * @enum {string}
         */
        Enhancement: "off" | "style" | "rewrite";
        /** @enum {string} */
        SuggestionSource: "model" | "built-in";
        Options: {
            sizes: components["schemas"]["SizeOption"][];
            /** @description From the cheapest to the dearest. */
            qualities: components["schemas"]["NamedOption"][];
            formats: components["schemas"]["NamedOption"][];
            enhancements: components["schemas"]["Enhancement"][];
            defaultEnhancement: components["schemas"]["Enhancement"];
            styles: components["schemas"]["StyleOption"][];
            /** @description Images that a front end may draw at a time, each with a request of its own. */
            variations: number[];
            /** @description Whether there are jobs. */
            jobs: boolean;
            /** @description Whether users sign in. */
            signIn: boolean;
            maxPromptCharacters: number;
        };
        SizeOption: {
            name: string;
            /** @description In pixels. */
            width: number;
            /** @description In pixels. */
            height: number;
            isDefault: boolean;
            /** @description The qualities that may be drawn in this size. */
            qualities: string[];
        };
        NamedOption: {
            name: string;
            isDefault: boolean;
        };
        StyleOption: {
            name: components["schemas"]["StyleName"];
            title: string;
        };
        Quota: {
            limit: number | null;
            used: number | null;
            remaining: number | null;
            /**
             * Format: date-time
             * @description Midnight UTC.
             */
            resetsAt: string | null;
        };
        Usage: {
            days: components["schemas"]["UsageDay"][];
        };
        UsageDay: {
            /** Format: date */
            date: string;
            images: components["schemas"]["Count"];
            texts: components["schemas"]["Count"];
            unpriced: components["schemas"]["Count"];
            refusals: components["schemas"]["Count"];
            failures: components["schemas"]["Count"];
            lost: components["schemas"]["Count"];
            callers: components["schemas"]["Count"];
            /** @description US dollars. */
            usd: number;
            /** @description US dollars that images under way may cost. */
            reservedUsd: number;
            models: components["schemas"]["UsageModel"][];
        };
        UsageModel: {
            model: string;
            images: components["schemas"]["Count"];
            /** @description Suggestions and rewritten prompts. */
            texts: components["schemas"]["Count"];
            /** @description Images and texts of a model without a price. */
            unpriced: components["schemas"]["Count"];
            /** @description Prompts that the provider refused. */
            refusals: components["schemas"]["Count"];
            failures: components["schemas"]["Count"];
            /** @description Images that may have been billed and are lost. `failures` include them. */
            lost: components["schemas"]["Count"];
            tokens: components["schemas"]["UsageTokens"];
            /** @description US dollars. */
            usd: number;
        };
        UsageTokens: {
            textInput: components["schemas"]["Count"];
            imageInput: components["schemas"]["Count"];
            output: components["schemas"]["Count"];
        };
        Count: number;
        ContainerToken: {
            /** @description The query string, without `?`. */
            sasToken: string;
            /** Format: uri */
            containerUrl: string;
            /** @description Azure's letters, such as `r` for read. */
            permissions: string;
            expiresOn: components["schemas"]["Time"];
        };
        Health: {
            status: components["schemas"]["HealthStatus"];
            version: string;
            reason?: components["schemas"]["HealthReason"];
        };
        /** @enum {string} */
        HealthStatus: "ok" | "degraded";
        /** @description What keeps the app's managed identity from working, as a sentence for the operator. It may change. */
        HealthReason: string;
        Status: {
            status: components["schemas"]["HealthStatus"];
            version: string;
            reason?: components["schemas"]["HealthReason"];
            /** @enum {string} */
            build: "release" | "debug";
            uptimeSeconds: number;
            /** @enum {string} */
            storage: "reachable" | "unreachable";
            /** @enum {string} */
            provider: "ok" | "refuses the key or the account";
            /** @description Images on disk that wait for their upload. Null if the folder cannot be read. */
            waitingInSpool: number | null;
            models: components["schemas"]["ModelStatus"][];
        };
        ModelStatus: {
            /** @description The setting that names the model. */
            setting: string;
            model: string;
            /** @enum {string} */
            state: "available" | "gone" | "unknown";
            /** Format: date */
            shutdownDate: string | null;
        };
        /** @description A problem document (RFC 9457). */
        Problem: {
            /** Format: uri-reference */
            type: string;
            /** @description The words of the status. */
            title: string;
            status: number;
            /** @description A sentence for the user. It may change. */
            detail: string;
            code: components["schemas"]["ErrorCode"];
            /** @description Identifies the request in the log. */
            invocationId: string;
            categories?: components["schemas"]["ModerationCategories"];
        };
        /** @description A problem document with an empty list, for front ends that iterate without a look at the status. */
        ListProblem: {
            /** Format: uri-reference */
            type: string;
            /** @description The words of the status. */
            title: string;
            status: number;
            /** @description A sentence for the user. It may change. */
            detail: string;
            code: components["schemas"]["ErrorCode"];
            /** @description Identifies the request in the log. */
            invocationId: string;
            imageUrls: components["schemas"]["ImageLink"][];
        };
        /** @description For a prompt that the moderation refused, the provider's names of the reasons. */
        ModerationCategories: string[];
        /**
         * @description A stable code. A later version may have more; treat an unknown one by its status.
         * @enum {string}
         */
        ErrorCode: "stored_later" | "invalid_request" | "cross_site_refused" | "delete_token_refused" | "not_found" | "method_not_allowed" | "in_progress" | "job_has_begun" | "job_cancelled" | "name_taken" | "job_outdated" | "too_large" | "idempotency_key_reused" | "prompt_rejected" | "quota_exceeded" | "refusals_exceeded" | "jobs_exceeded" | "caller_budget_reached" | "budget_reached" | "provider_rate_limited" | "internal" | "jobs_unavailable" | "provider_failed" | "provider_misconfigured" | "provider_answer_lost" | "job_failed" | "busy" | "quota_unavailable" | "storage_unavailable" | "provider_timeout";
        /** @description A UTC day, a hyphen, and 64 hexadecimal digits. */
        JobId: string;
        /**
         * Format: uri-reference
         * @description The path of a job.
         */
        JobPath: string;
        /**
         * @description 13 digits, a hyphen, and 32 hexadecimal digits. An image keeps it for ever. Ids sort newest first, and each is a
         *     cursor of getImages.
         */
        ImageId: string;
        /** @description The blob's name. That of an image of this app is `{caption}_{epoch milliseconds}.{png|jpg|webp}`. */
        ImageName: string;
        /** @description The media type of the file, such as `image/png`. */
        ImageContentType: string;
        /**
         * Format: uri
         * @description A read-only link. It ends when its `se` says; ask the API for a new one then.
         */
        SignedUrl: string;
        /** @description How long such images took lately. */
        EstimateSeconds: number | null;
        /** Format: date-time */
        Time: string;
        /** @description An OpenAPI document. */
        OpenApiDocument: {
            openapi: string;
            info: Record<string, never>;
            paths: Record<string, never>;
        } & {
            [key: string]: unknown;
        };
    };
    responses: {
        /** @description The function key is missing or wrong. The Functions host gives this answer, without a body. */
        KeyMissing: {
            headers: {
                [name: string]: unknown;
            };
            content?: never;
        };
        /** @description A fault of the app. */
        InternalError: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description Users sign in, and a page on another site sent the request; see `ALLOWED_ORIGINS`. */
        CrossSiteRefused: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /**
         * @description The header `X-Delete-Token` is missing or belongs to another image. Or users sign in, and a page on another site
         *     sent the request.
         */
        DeletionRefused: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description No job has this id, or it ended more than 24 hours ago. */
        JobNotFound: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description No image has this id. */
        ImageNotFound: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /**
         * @description Another image has the name of the one to restore, or an image that was deleted before has the name of the one to
         *     delete and can still be restored.
         */
        NameTaken: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description Storage cannot be reached. */
        StorageUnavailable: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description Too many event streams are open, or storage cannot be reached. */
        BusyOrStorageUnavailable: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                "Retry-After": components["headers"]["RetryAfter"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description The state table cannot be reached. */
        QuotaUnavailable: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                "X-Error-Code": components["headers"]["ErrorCode"];
                [name: string]: unknown;
            };
            content: {
                "text/plain": string;
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description The client has this answer. */
        NotModified: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                ETag: components["headers"]["ETag"];
                "Cache-Control": components["headers"]["CacheControl"];
                [name: string]: unknown;
            };
            content?: never;
        };
        /** @description The client has this answer. */
        NotModifiedList: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                ETag: components["headers"]["ETag"];
                Link: components["headers"]["Link"];
                "Cache-Control": components["headers"]["CacheControl"];
                [name: string]: unknown;
            };
            content?: never;
        };
        /** @description The image. */
        ImageDetails: {
            headers: {
                "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                [name: string]: unknown;
            };
            content: {
                "application/json": components["schemas"]["ImageDetails"];
            };
        };
    };
    parameters: {
        /**
         * @description Stands for one generation of this caller for 24 hours: the second request with a key gets the answer of the
         *     first, and nothing is paid twice. 1 to 255 ASCII characters, with or without quotation marks, for example a UUID.
         *     After a failure that drew nothing the key is free again.
         * @example fox-1
         */
        IdempotencyKey: string;
        /**
         * @description `respond-async` asks for a job. `wait=SECONDS`, 1 to 200, asks for the image if it is there in time, else for a
         *     job. Other preferences are ignored (RFC 7240).
         */
        Prefer: string;
        /**
         * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
         * @example "49adc1782c6e351926416bffa9e23ffb"
         */
        IfNoneMatch: string;
        /**
         * @description The `deleteToken` of generateImage's answer. Without it, or with that of another image, 403.
         * @example 99d595556942f04d8b91ed0f85139d644de705808bae94ccf6f332d0a581017d
         */
        DeleteToken: string;
        /**
         * @description The `id` of a job. `statusUrl` is the whole path.
         * @example 2026-11-26-22adfbdb8610f8e2ba7da4bba24c76cbb53fee45b43ff67d40869039fc063b12
         */
        JobId: components["schemas"]["JobId"];
        /**
         * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
         * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
         */
        ImageId: components["schemas"]["ImageId"];
    };
    requestBodies: never;
    headers: {
        /**
         * @description Identifies this request in the log. Send it with a question to the operator.
         * @example 1f0c1a52-6d8e-4f3b-9a77-0c2f4be6a9d1
         */
        InvocationId: string;
        /**
         * @description The stable code of an error, also for a caller that reads text.
         * @example quota_exceeded
         */
        ErrorCode: components["schemas"]["ErrorCode"];
        /**
         * @description The images of a caller and UTC day, where there is a quota
         *     ([draft](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/)).
         * @example "daily";q=5;w=86400
         */
        RateLimitPolicy: string;
        /**
         * @description What is left of the quota, and the seconds until midnight UTC.
         * @example "daily";r=4;t=3600
         */
        RateLimit: string;
        /**
         * @description The preference of `Prefer` that was honoured.
         * @example respond-async
         */
        PreferenceApplied: string;
        /** @description The path of the job. */
        Location: components["schemas"]["JobPath"];
        /**
         * @description Seconds until another request makes sense.
         * @example 2
         */
        RetryAfter: number;
        /**
         * @description With `stored_later`, the name that the image will have, percent-encoded.
         * @example A%20red%20fox%5F1795667402132%2Epng
         */
        ImageName: string;
        /**
         * @description The path of the next page, if there is one.
         * @example </api/getImages?limit=60&cursor=8204332593654-41e77161fe142f42223b60d31f29bf6d>; rel="next"
         */
        Link: string;
        /**
         * @description Identifies this answer, for `If-None-Match`.
         * @example "49adc1782c6e351926416bffa9e23ffb"
         */
        ETag: string;
        /**
         * @description How long a client may keep the answer. Answers without this header are `no-store`.
         * @example private, no-cache
         */
        CacheControl: string;
        /** @description The page loads its own files, this API and the images. */
        ContentSecurityPolicy: string;
        /** @description Links of the page tell other sites nothing about this one. */
        ReferrerPolicy: "no-referrer";
        /** @description Browsers do not guess the type of a file. */
        ContentTypeOptions: "nosniff";
        /** @description Keeps the page out of search engines. */
        RobotsTag: "noindex";
    };
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    generateImage: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description Stands for one generation of this caller for 24 hours: the second request with a key gets the answer of the
                 *     first, and nothing is paid twice. 1 to 255 ASCII characters, with or without quotation marks, for example a UUID.
                 *     After a failure that drew nothing the key is free again.
                 * @example fox-1
                 */
                "Idempotency-Key"?: components["parameters"]["IdempotencyKey"];
                /**
                 * @description `respond-async` asks for a job. `wait=SECONDS`, 1 to 200, asks for the image if it is there in time, else for a
                 *     job. Other preferences are ignored (RFC 7240).
                 */
                Prefer?: components["parameters"]["Prefer"];
            };
            path?: never;
            cookie?: never;
        };
        /** @description At most 400 KiB. The body is read as JSON, whatever its `Content-Type` says. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["GenerateImageRequest"];
            };
        };
        responses: {
            /** @description The image is drawn and stored, or the events of its generation. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    [name: string]: unknown;
                };
                content: {
                    /** @example Image uploaded successfully */
                    "text/plain": "Image uploaded successfully";
                    "application/json": components["schemas"]["GeneratedImage"];
                    "text/event-stream": components["schemas"]["GenerationEvents"];
                };
            };
            /**
             * @description A job: the generation goes on. Or, with the code `stored_later`: the image is drawn and on disk, and is
             *     listed when storage is back. Do not send the request again.
             */
            202: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    Location: components["headers"]["Location"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "X-Image-Name": components["headers"]["ImageName"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AcceptedJob"] | components["schemas"]["ImageStoredLater"];
                    "text/plain": string;
                };
            };
            /**
             * @description The body is no JSON object, the prompt is missing, the model does not have an option, or the image costs more
             *     than `MAX_IMAGE_USD`. The sentence names what is allowed.
             */
            400: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description Users sign in, and a page on another site sent the request; see `ALLOWED_ORIGINS`. */
            403: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The generation that the `Idempotency-Key` stands for is under way, or has ended without an image. */
            409: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The body has more than 400 KiB. */
            413: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The provider or its moderation refuses the prompt, or the `Idempotency-Key` had another body. */
            422: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description A limit of the caller, of the app or of the provider is reached. Nothing is drawn. */
            429: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description A fault of the app. */
            500: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description There are no jobs, because neither `AzureWebJobsStorage` nor `AzureWebJobsStorage__accountName` leads to a queue. */
            501: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /**
             * @description The provider failed. After `provider_answer_lost` the image may have been billed, and the same
             *     `Idempotency-Key` gets this answer from then on.
             */
            502: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The app draws as many images as it can, or cannot reach its storage. Nothing was paid. */
            503: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description No image within `OPENAI_TIMEOUT_SECONDS`. It may have been billed, and is not asked for again. */
            504: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    "Preference-Applied": components["headers"]["PreferenceApplied"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    getJob: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of a job. `statusUrl` is the whole path.
                 * @example 2026-11-26-22adfbdb8610f8e2ba7da4bba24c76cbb53fee45b43ff67d40869039fc063b12
                 */
                id: components["parameters"]["JobId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The job's state, or its events. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Job"];
                    "text/event-stream": components["schemas"]["GenerationEvents"];
                };
            };
            404: components["responses"]["JobNotFound"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["BusyOrStorageUnavailable"];
        };
    };
    cancelJob: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of a job. `statusUrl` is the whole path.
                 * @example 2026-11-26-22adfbdb8610f8e2ba7da4bba24c76cbb53fee45b43ff67d40869039fc063b12
                 */
                id: components["parameters"]["JobId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The job is cancelled. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Job"];
                };
            };
            403: components["responses"]["CrossSiteRefused"];
            404: components["responses"]["JobNotFound"];
            /** @description The job has begun or ended, so it cannot be cancelled any more. */
            409: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            500: components["responses"]["InternalError"];
            503: components["responses"]["StorageUnavailable"];
        };
    };
    listImages: {
        parameters: {
            query?: {
                /**
                 * @description The most images of a page.
                 * @example 60
                 */
                limit?: number;
                /** @description Where the page begins. It needs `limit`. Take both from `next`. */
                cursor?: components["schemas"]["ImageId"];
            };
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The images. The header `Link` leads to the next page, or to the rest of a list that was cut. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    Link: components["headers"]["Link"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ImageList"] | components["schemas"]["ImagePage"];
                };
            };
            304: components["responses"]["NotModifiedList"];
            /** @description The parameter `limit` or `cursor` is not valid. */
            400: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ListProblem"];
                };
            };
            /** @description A fault of the app. */
            500: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ListProblem"];
                };
            };
            /** @description Storage cannot be reached, or too many listings are being sent. */
            503: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    "Retry-After": components["headers"]["RetryAfter"];
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["ListProblem"];
                };
            };
        };
    };
    getImage: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: components["responses"]["ImageDetails"];
            404: components["responses"]["ImageNotFound"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["StorageUnavailable"];
        };
    };
    deleteImage: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `deleteToken` of generateImage's answer. Without it, or with that of another image, 403.
                 * @example 99d595556942f04d8b91ed0f85139d644de705808bae94ccf6f332d0a581017d
                 */
                "X-Delete-Token"?: components["parameters"]["DeleteToken"];
            };
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The image is deleted. A second deletion gets the same answer. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletedImage"];
                };
            };
            403: components["responses"]["DeletionRefused"];
            404: components["responses"]["ImageNotFound"];
            409: components["responses"]["NameTaken"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["StorageUnavailable"];
        };
    };
    restoreImage: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `deleteToken` of generateImage's answer. Without it, or with that of another image, 403.
                 * @example 99d595556942f04d8b91ed0f85139d644de705808bae94ccf6f332d0a581017d
                 */
                "X-Delete-Token"?: components["parameters"]["DeleteToken"];
            };
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: components["responses"]["ImageDetails"];
            403: components["responses"]["DeletionRefused"];
            404: components["responses"]["ImageNotFound"];
            409: components["responses"]["NameTaken"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["StorageUnavailable"];
        };
    };
    deleteAnyImage: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The image is deleted. A second deletion gets the same answer. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletedImage"];
                };
            };
            401: components["responses"]["KeyMissing"];
            403: components["responses"]["CrossSiteRefused"];
            404: components["responses"]["ImageNotFound"];
            409: components["responses"]["NameTaken"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["StorageUnavailable"];
        };
    };
    restoreAnyImage: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The `id` of an image, from a page of getImages or the JSON of generateImage.
                 * @example 8204332597867-be9b71e9cf68ee5020710278c8e29be2
                 */
                id: components["parameters"]["ImageId"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: components["responses"]["ImageDetails"];
            401: components["responses"]["KeyMissing"];
            403: components["responses"]["CrossSiteRefused"];
            404: components["responses"]["ImageNotFound"];
            409: components["responses"]["NameTaken"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["StorageUnavailable"];
        };
    };
    suggestPrompt: {
        parameters: {
            query?: {
                /**
                 * @description The name of a style preset. Another value has no effect.
                 * @example watercolor
                 */
                style?: string;
                /**
                 * @description What the prompt is to be about, in any words.
                 * @example a fox
                 */
                about?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The prompt. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    /** @description Whether the text model wrote the prompt. */
                    "X-Suggestion-Source": components["schemas"]["SuggestionSource"];
                    [name: string]: unknown;
                };
                content: {
                    /** @example A lighthouse on a cliff at dusk, waves below, a long exposure */
                    "text/plain": string;
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
    listStyles: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The presets, which `style` of a request can name. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["StyleList"];
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
    getOptions: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The options. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Options"];
                };
            };
            304: components["responses"]["NotModified"];
            500: components["responses"]["InternalError"];
        };
    };
    getQuota: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The caller's images of this UTC day. All fields are null where there is no quota. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "RateLimit-Policy": components["headers"]["RateLimitPolicy"];
                    RateLimit: components["headers"]["RateLimit"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Quota"];
                };
            };
            500: components["responses"]["InternalError"];
            503: components["responses"]["QuotaUnavailable"];
        };
    };
    getUsage: {
        parameters: {
            query?: {
                /**
                 * @description The number of UTC days, up to today.
                 * @example 7
                 */
                days?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The usage. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Usage"];
                    "text/csv": string;
                };
            };
            /** @description The parameter `days` is not valid. */
            400: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            401: components["responses"]["KeyMissing"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["QuotaUnavailable"];
        };
    };
    getContainerToken: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The token. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    /** @example sv=2022-11-02&se=2026-11-21T11%3A00%3A00Z&sr=c&sp=rcw&sig=… */
                    "text/plain": string;
                    "application/json": components["schemas"]["ContainerToken"];
                };
            };
            401: components["responses"]["KeyMissing"];
            500: components["responses"]["InternalError"];
        };
    };
    getHealth: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One word, and the version; the reason while the app's managed identity does not work. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
    getStatus: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Storage, provider, spool and models. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
            401: components["responses"]["KeyMissing"];
            500: components["responses"]["InternalError"];
        };
    };
    getOpenApi: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The document. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OpenApiDocument"];
                };
            };
            304: components["responses"]["NotModified"];
            500: components["responses"]["InternalError"];
        };
    };
    getOpenApi31: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The document. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OpenApiDocument"];
                };
            };
            304: components["responses"]["NotModified"];
            500: components["responses"]["InternalError"];
        };
    };
    getOpenApiYaml: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The document, as it was written. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    [name: string]: unknown;
                };
                content: {
                    "application/yaml": components["schemas"]["OpenApiDocument"];
                };
            };
            304: components["responses"]["NotModified"];
            500: components["responses"]["InternalError"];
        };
    };
    getPage: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The page or one of its files. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                    "text/css": string;
                    "text/javascript": string;
                    "image/svg+xml": string;
                };
            };
            /** @description The client has this page. */
            304: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description There is no such file, or no page. */
            404: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The path belongs to the Functions host, and does not take this method. */
            405: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
    checkPage: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The page or one of its files. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                    "text/css": string;
                    "text/javascript": string;
                    "image/svg+xml": string;
                };
            };
            /** @description The client has this page. */
            304: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description There is no such file, or no page. */
            404: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The path belongs to the Functions host, and does not take this method. */
            405: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
    getPageFile: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path: {
                /**
                 * @description The name of a page, such as `docs`, or of a file. A file's name has a version, so browsers keep the file for
                 *     ever.
                 * @example docs
                 */
                page: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The page or one of its files. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                    "text/css": string;
                    "text/javascript": string;
                    "image/svg+xml": string;
                };
            };
            /** @description The client has this page. */
            304: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description There is no such file, or no page. */
            404: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The path belongs to the Functions host, and does not take this method. */
            405: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
    checkPageFile: {
        parameters: {
            query?: never;
            header?: {
                /**
                 * @description The `ETag` of the answer that the client has. If it is still valid, the answer is 304.
                 * @example "49adc1782c6e351926416bffa9e23ffb"
                 */
                "If-None-Match"?: components["parameters"]["IfNoneMatch"];
            };
            path: {
                /**
                 * @description The name of a page, such as `docs`, or of a file. A file's name has a version, so browsers keep the file for
                 *     ever.
                 * @example docs
                 */
                page: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The page or one of its files. */
            200: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                    "text/css": string;
                    "text/javascript": string;
                    "image/svg+xml": string;
                };
            };
            /** @description The client has this page. */
            304: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    ETag: components["headers"]["ETag"];
                    "Cache-Control": components["headers"]["CacheControl"];
                    "Content-Security-Policy": components["headers"]["ContentSecurityPolicy"];
                    "Referrer-Policy": components["headers"]["ReferrerPolicy"];
                    "X-Content-Type-Options": components["headers"]["ContentTypeOptions"];
                    "X-Robots-Tag": components["headers"]["RobotsTag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description There is no such file, or no page. */
            404: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description The path belongs to the Functions host, and does not take this method. */
            405: {
                headers: {
                    "X-Azure-Functions-InvocationId": components["headers"]["InvocationId"];
                    "X-Error-Code": components["headers"]["ErrorCode"];
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            500: components["responses"]["InternalError"];
        };
    };
}

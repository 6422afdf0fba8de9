/** A random `Idempotency-Key`. `randomUUID` exists in secure contexts only. */
export function newKey(): string;
/**
 * @param {{base?: string, headers?: Record<string, string>, fetch?: typeof globalThis.fetch, sleep?: Sleep}} [settings]
 *   `base`: the app's origin, such as `https://contoso.azurewebsites.net`; without it, the page's own.
 *   `headers`: sent with each request, such as `{"x-functions-key": key}`.
 */
export function createClient({ base, headers, fetch, sleep }?: {
    base?: string;
    headers?: Record<string, string>;
    fetch?: typeof globalThis.fetch;
    sleep?: Sleep;
}): {
    list: ({ page, limit, etag }?: {
        page?: string;
        limit?: number;
        etag?: string;
    }) => Promise<{
        images: ListedImage[];
        next?: string;
        etag?: string;
    } | null>;
    /** All images, newest first, page by page. @returns {AsyncGenerator<ListedImage>} */
    images(): AsyncGenerator<ListedImage>;
    /** What a request for an image may ask for. @returns {Promise<Options>} */
    options: () => Promise<Options>;
    /** The style presets. @returns {Promise<Style[]>} */
    styles: () => Promise<Style[]>;
    /** What the caller may draw today. @returns {Promise<Quota>} */
    quota: () => Promise<Quota>;
    /** A token for the container; it needs a function key in `headers`. @returns {Promise<ContainerToken>} */
    token: () => Promise<ContainerToken>;
    /**
     * An idea for a prompt.
     * @param {{style?: string, about?: string}} [choices]
     */
    suggestion: (choices?: {
        style?: string;
        about?: string;
    }) => Promise<string>;
    /** @param {string} id @returns {Promise<ImageDetails>} */
    details: (id: string) => Promise<ImageDetails>;
    /**
     * Deletes an image.
     * @param {string} id
     * @param {string} token the `deleteToken` of the `image` event
     * @returns {Promise<Wire["DeletedImage"]>}
     */
    remove: (id: string, token: string) => Promise<Wire["DeletedImage"]>;
    /** Brings a deleted image back. @param {string} id @param {string} token @returns {Promise<ImageDetails>} */
    restore: (id: string, token: string) => Promise<ImageDetails>;
    /** The state of a generation. @param {string} statusUrl @returns {Promise<Job>} */
    job: (statusUrl: string) => Promise<Job>;
    /** Cancels a job that has not begun. @param {string} statusUrl @returns {Promise<Job>} */
    cancel: (statusUrl: string) => Promise<Job>;
    /**
     * The user who is signed in, if App Service authentication is on.
     * @returns {Promise<string | undefined>}
     */
    account: () => Promise<string | undefined>;
    /**
     * Draws an image, or goes on with one. Ends after `image` or `storedLater`; throws an ApiError if
     * there will be no image. A lost connection is taken up again, without end but for `signal`: at `statusUrl`
     * once that is known, before by the same request with the same key, so nothing is paid twice.
     * @param {GenerateImageRequest} what
     * @param {{key?: string, statusUrl?: string, way?: "events" | "job" | "polledJob", signal?: AbortSignal}} [how]
     *   `key`: the `Idempotency-Key`; one for each image, and the same to go on after a reload.
     *   `statusUrl`: that of `accepted`, to go on with a generation.
     *   `way`: the events of a request, those of a job, which outlives the process, or a job that is asked for its
     *   state, which needs no open connection.
     * @returns {AsyncGenerator<GenerationEvent>}
     */
    generate(what: GenerateImageRequest, { key, statusUrl, way, signal }?: {
        key?: string;
        statusUrl?: string;
        way?: "events" | "job" | "polledJob";
        signal?: AbortSignal;
    }): AsyncGenerator<GenerationEvent>;
};
/** An answer that is no success, or none. */
export class ApiError extends Error {
    /**
     * @param {ErrorCode} code
     * @param {string} [detail]
     * @param {{status?: number, retryAfter?: number, categories?: string[], invocationId?: string}} [more]
     */
    constructor(code: ErrorCode, detail?: string, more?: {
        status?: number;
        retryAfter?: number;
        categories?: string[];
        invocationId?: string;
    });
    code: ErrorCode;
    /** A sentence for the user, by the app. It may be empty. */
    detail: string;
    /** The HTTP status; 0 without one. */
    status: number;
    /** The seconds after which another attempt makes sense, if the app says so. */
    retryAfter: number | undefined;
    /** Why the provider's moderation refused a prompt. */
    categories: string[];
    /** Names the request in the app's log. */
    invocationId: string | undefined;
}
/**
 * The types of the wire, generated from openapi.yaml.
 */
export type Wire = import("./wire.d.ts").components["schemas"];
/**
 * What to draw. Which names are allowed depends on the app: see `options`.
 */
export type GenerateImageRequest = { [K in keyof Wire["GenerateImageRequest"]]: NonNullable<Wire["GenerateImageRequest"][K]> extends string ? string : NonNullable<Wire["GenerateImageRequest"][K]>; };
/**
 * the image that `generate` ends with
 */
export type GeneratedImage = Wire["GeneratedImage"];
/**
 * an image of the gallery
 */
export type ListedImage = Wire["ListedImage"];
/**
 * all that is public of an image
 */
export type ImageDetails = Wire["ImageDetails"];
export type Options = Wire["Options"];
export type Quota = Wire["Quota"];
export type Style = Wire["Style"];
export type ContainerToken = Wire["ContainerToken"];
export type Job = Wire["Job"];
export type Problem = Wire["Problem"];
/**
 * A code of the API; `connection` if the app gave no answer; `unknown` if the answer has no code, such as a 401 for a
 * missing function key. A later version of the app may have more.
 */
export type ErrorCode = Wire["ErrorCode"] | "connection" | "unknown" | (string & {});
/**
 * What `generate` yields.
 * - `accepted`: the generation has an address. Keep `statusUrl`: it leads to the image for 24 hours.
 * - `progress`: the generation is `queued`, `drawing` or `saving`.
 * - `preview`: an unfinished image, as a data URL.
 * - `image`: the image; the last event.
 * - `storedLater`: the image is safe, and will be listed by this name when storage is back; the last event.
 * - `waiting`: the connection is lost, or the app is busy (`code`); the client tries again after `seconds`.
 */
export type GenerationEvent = {
    type: "accepted";
    id: string;
    statusUrl: string;
    estimateSeconds: number | null;
    quotaRemaining?: number | null;
    isJob?: boolean;
} | ({
    type: "progress";
} & Wire["ProgressEvent"]) | ({
    type: "preview";
} & Wire["PreviewEvent"]) | {
    type: "image";
    image: GeneratedImage;
} | {
    type: "storedLater";
    name: string;
} | {
    type: "waiting";
    code: ErrorCode;
    seconds: number;
};
export type RawEvent = GenerationEvent | {
    type: "problem";
    problem: Partial<Problem>;
} | {
    type: "poll";
    seconds: number;
};
export type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>;
export type Client = ReturnType<typeof createClient>;

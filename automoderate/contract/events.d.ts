// The events of AutoModerate live, for the types of socket.io-client:
//
//   const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io();
//
// Written by scripts/contract_documents.py.

/** What became of content. */
export type Status = "approved" | "rejected" | "flagged" | "pending";

/** An update and its place in its project: milliseconds-sequence, compared as two numbers. */
export type EventId = string;

/**
 * A decision on content, or content that has just come. The server looks at project_id and status only and
 * passes on everything; these are the fields that AutoModerate's pipelines fill in.
 */
export type ContentFields = {
  content_id?: string | null;
  /** The project; filled in where it is missing. */
  project_id?: string;
  status?: Status;
  /** Such as text or image. */
  content_type?: string;
  /** The first 100 characters, then ... if there is more. Written by strangers. */
  content_preview?: string;
  /** Any JSON. Written by strangers. */
  meta_data?: unknown;
  /** How many moderators had a result. */
  results_count?: number;
  /** Seconds until the decision. */
  processing_time?: number;
  /** rule, ai, manual, pending, unknown, or another word. */
  moderator_type?: string;
  /** The same for people. */
  moderator_name?: string;
  /** The rule that decided, where one did. */
  rule_name?: string | null;
  /** When it was decided, in ISO 8601. */
  timestamp?: string;
};

/** Any numbers of the project. */
export type StatsFields = Record<string, unknown>;

/** A rule of the project was changed. */
export type RuleFields = {
  /** Such as created, updated or deleted. */
  action?: string;
  /** The rule's fields. */
  rule?: Record<string, unknown>;
  /** When, in ISO 8601. */
  timestamp?: string;
};

/** A decision on content (moderation_update), or content that has just come (content_received). */
export type ModerationUpdate = ContentFields & {
  project_id: string;
  event_id: EventId;
};

/** Numbers of the project. */
export type StatsUpdate = StatsFields & {
  event_id: EventId;
};

/** A rule of the project was changed. */
export type RuleUpdate = RuleFields & {
  event_id: EventId;
};

/** Enter a project's room. */
export interface JoinProject {
  project_id: string;
  /** Where this client stopped: what was missed is sent first. */
  last_event_id?: string | null;
  /** How many of the newest updates are sent first; ignored beside last_event_id. */
  recent?: number;
  /** Of moderation_update and content_received only those with one of these are sent. */
  statuses?: Status[];
  /** Whether to be told who is in the room. */
  presence?: boolean;
}

/** Leave a project's room. */
export interface LeaveProject {
  project_id: string;
}

/** Tell the others in the room what this user has open. */
export interface LookingAt {
  project_id: string;
  /** null: nothing any more. */
  content_id: string | null;
}

/** It is known who connected; sent once. */
export interface Connected {
  message: "Connected to AutoModerate";
}

/** This client is in the room, and is sent every update from here on. */
export interface JoinedProject {
  project_id: string;
  /** project_ and the project's id. */
  room: string;
  /** Where to go on after a lost connection. */
  last_event_id: EventId;
  /**
   * There where the join said last_event_id. false: the history no longer reaches back that far, and the client
   * has to reload what it shows.
   */
  recovered?: boolean;
}

/** This client is not in the room (any more). */
export interface LeftProject {
  project_id: string;
}

/** The others are told. */
export interface LookedAt {
  project_id: string;
  content_id: string | null;
}

/** Why something was refused. */
export type ErrorCode = "authentication_required" | "project_id_required" | "invalid_project_id" | "invalid_statuses" | "invalid_content_id" | "presence_required" | "project_not_found" | "access_denied" | "timeout" | "server_error" | "room_limit" | "rate_limited";

/** Why something was refused. Existing dashboards compare the message; the code is for new ones. */
export interface Problem {
  message: string;
  code: ErrorCode;
}

/** The answer to an event that was refused. */
export interface ErrorAnswer {
  error: Problem;
}

/** Something was refused, or access was taken away. */
export type ErrorReport = Problem & {
  /** The project, where the request named one. */
  project_id?: string;
};

/** What the acknowledgement of join_project says. LeftProject: a leave overtook the join. */
export type JoinAnswer = JoinedProject | LeftProject | ErrorAnswer;

/** What the acknowledgement of leave_project says. */
export type LeaveAnswer = LeftProject | ErrorAnswer;

/** What the acknowledgement of looking_at says. */
export type LookAnswer = LookedAt | ErrorAnswer;

/** Somebody who is in the room. */
export interface PresentUser {
  user_id: string;
  username: string;
}

/** Everybody who is in the room; replaces what was known. */
export interface PresenceState {
  project_id: string;
  users: PresentUser[];
}

/** Who came and who left, at most once a second. */
export interface PresenceChange {
  project_id: string;
  joined: PresentUser[];
  left: Array<{
    user_id: string;
  }>;
}

/** What somebody has open; null: nothing any more. */
export interface PresenceLooking {
  project_id: string;
  user_id: string;
  content_id: string | null;
}

/** One event to publish. */
export type EventToPublish = {
  event: "moderation_update";
  data: ContentFields;
} | {
  event: "content_received";
  data: ContentFields;
} | {
  event: "stats_update";
  data: StatsFields;
} | {
  event: "rule_update";
  data: RuleFields;
};

/** Several events, of which all are published or none. */
export interface EventsToPublish {
  events: EventToPublish[];
}

/** It was published. */
export interface EventPublished {
  event_id: EventId;
}

/** They were, in this order. */
export interface EventsPublished {
  event_ids: EventId[];
}

/** One event as clients were sent it; of other names where an application emits its own through Redis. */
export type KeptEvent = {
  event: "moderation_update";
  data: ModerationUpdate;
} | {
  event: "content_received";
  data: ModerationUpdate;
} | {
  event: "stats_update";
  data: StatsUpdate;
} | {
  event: "rule_update";
  data: RuleUpdate;
} | {
  event: string;
  data: Record<string, unknown>;
};

/** A project's updates, oldest first. */
export interface HistoryPage {
  events: KeptEvent[];
  /** false: the history does not reach back that far. */
  complete: boolean;
  /** Where to go on. */
  last_event_id: EventId;
}

/** Whose access to what may have changed. */
export interface AccessChange {
  user_id?: string;
  project_id?: string;
  /** The user's sessions end. Needs a control token. */
  logged_out?: boolean;
}

/** It takes effect now, on every node. */
export interface Accepted {
  status: "accepted";
}

/** The process is alive. */
export interface Health {
  status: "healthy";
  service: "AutoModerate";
}

/** Whether clients should be sent here, and what is missing. */
export interface Readiness {
  status: "ready" | "unavailable";
  checks: {
    database: "ok" | "unavailable";
    realtime: "ok" | "draining" | "cut off from the other nodes";
    publishing: "ok" | "unavailable";
  };
}

/** Why a request was refused; nothing of it was published. */
export interface HttpProblem {
  error: {
    /** For people. */
    message: string;
    /** For programs. */
    code: string;
    /** Which of several events, from 1. */
    event?: number;
  };
}

/** What the server sends. */
export interface ServerToClientEvents {
  connected: (data: Connected) => void;
  error: (data: ErrorReport) => void;
  joined_project: (data: JoinedProject) => void;
  left_project: (data: LeftProject) => void;
  moderation_update: (data: ModerationUpdate) => void;
  content_received: (data: ModerationUpdate) => void;
  stats_update: (data: StatsUpdate) => void;
  rule_update: (data: RuleUpdate) => void;
  presence_state: (data: PresenceState) => void;
  presence_change: (data: PresenceChange) => void;
  presence_looking: (data: PresenceLooking) => void;
}

/** What a client sends. */
export interface ClientToServerEvents {
  join_project: (request: JoinProject, acknowledge?: (answer: JoinAnswer) => void) => void;
  leave_project: (request: LeaveProject, acknowledge?: (answer: LeaveAnswer) => void) => void;
  looking_at: (request: LookingAt, acknowledge?: (answer: LookAnswer) => void) => void;
}
